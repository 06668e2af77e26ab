"""What every compiled loop shares: its options, the threads it runs on, its view of a tensor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numba
import numpy as np
import torch

# NaN keeps its meaning: of the fast-math rules only fused multiply-add is allowed.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

# Layers of Numba that several Python threads may enter at once; the others are entered in turn.
_REENTRANT = ("omp", "tbb")
_turn = threading.Lock()
_home: int | None = None


def inner(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of a loop."""
    return _compiled(loop, parallel=False)


def outer(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop whose ``prange`` is shared among threads."""
    return _compiled(loop, parallel=True)


def run(loop: Callable[..., None], *arguments: Any) -> None:
    """Run a compiled parallel loop on as many threads as torch uses; tensors are passed as flat arrays."""
    global _home
    arrays = [flat(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if _home is None:
        with _turn:
            _start(threads)
            _home = os.getpid()
    with nullcontext() if numba.threading_layer() in _REENTRANT else _turn:
        numba.set_num_threads(threads)
        loop(*arrays)


def usable() -> bool:
    """False in a process forked from one that ran a loop: its OpenMP threads were not forked with it."""
    return _home is None or _home == os.getpid()


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous tensor, (N,)."""
    return tensor.detach().numpy().reshape(-1)


def _compiled(loop: Callable[..., Any], parallel: bool) -> Callable[..., Any]:
    try:
        return numba.njit(parallel=parallel, cache=True, **OPTIONS)(loop)
    except RuntimeError:
        # No folder takes the compiled code: it is compiled anew in each process.
        return numba.njit(parallel=parallel, **OPTIONS)(loop)


def _start(threads: int) -> None:
    """Start Numba's threads: OpenMP's where there is one, which are then torch's own."""
    if not any(os.environ.get(f"NUMBA_THREADING_LAYER{end}") for end in ("", "_PRIORITY")):
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    numba.set_num_threads(threads)
    _touch(np.zeros(1, np.float32))
    # Starting OpenMP sets its number of threads, which is where torch reads its own.
    torch.set_num_threads(threads)


@outer
def _touch(array: np.ndarray) -> None:
    for i in numba.prange(array.size):
        array[i] += np.float32(1)
