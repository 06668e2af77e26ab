"""What a registration network learns from two images: how unlike they are, carried both ways."""

from __future__ import annotations

from collections.abc import Callable

import torch

from whence import kernels
from whence.losses.regularity import gradient_energy


def both_ways(
    velocity: torch.Tensor,
    moving: torch.Tensor,
    fixed: torch.Tensor,
    compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    squarings: int,
) -> dict[str, torch.Tensor]:
    """``similarity``, mean of both directions, and ``smooth``, the gradient energy of a velocity (B, D, *spatial).

    In voxels; it carries ``moving`` (B, C, *spatial) onto ``fixed``. ``compare`` says how unlike two images are.
    """
    there = compare(kernels.warp(moving, kernels.exp(velocity, squarings)), fixed)
    back = compare(kernels.warp(fixed, kernels.exp(-velocity, squarings)), moving)
    return {"similarity": (there + back) / 2, "smooth": gradient_energy(velocity)}
