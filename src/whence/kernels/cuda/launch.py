"""What every GPU kernel shares: where Triton runs, how a kernel is launched, its view of a lattice.

Importing this raises ImportError, with the reason, where Triton is missing or does not start.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch
import triton

# Fused multiply-adds, as in the CPU's loops; Triton's own choice changes with its version.
OPTIONS = {"enable_fp_fusion": True}
# Voxels of a program that takes each for itself.
BLOCK = 256
# Neighbours along x of a program that slides along y, and steps of such a slide (each begins with a window's sum).
LANES, SLIDE = 64, 32


def run(kernel: Any, programs: int, *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Launch a kernel on the device of its tensors, which are contiguous."""
    devices = {a.device for a in arguments if isinstance(a, torch.Tensor)}
    if len(devices) != 1:
        raise ValueError(f"tensors of one operation lie on one device; got {', '.join(sorted(map(str, devices)))}")
    device = devices.pop()
    # Triton launches on the current device, wherever the tensors are.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs,)](*arguments, num_warps=warps, **OPTIONS, **constants)


def blocks(count: int, size: int) -> int:
    return -(-count // size)


def slide(radius: int) -> int:
    """Steps of one slide: several windows, lest most of the time goes into its beginning."""
    return max(SLIDE, 4 * radius)


def three(lattice: torch.Size) -> tuple[int, int, int]:
    """A lattice's three sizes; of a 2D one the middle one is 1."""
    return (lattice[0], 1, lattice[1]) if len(lattice) == 2 else (lattice[0], lattice[1], lattice[2])


def _start() -> None:
    """Start Triton, which builds a small module with the system's C compiler, so that its absence shows here."""
    if os.environ.get("TRITON_INTERPRET") == "1" or not torch.cuda.is_available():
        return
    if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 0):
        raise ImportError("Triton needs a GPU of compute capability 7.0 or higher")
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:
        raise ImportError(f"Triton does not start: {error}") from error


_start()
