"""Inverse of a plain displacement."""

from __future__ import annotations

from whence import kernels
from whence.field.displacement import Displacement


def invert(displacement: Displacement, iterations: int = 100, tolerance: float = 1e-3) -> Displacement:
    """Inverse field by fixed point, v <- -u o (id + v) (Chen et al. 2008).

    Stops when no voxel changes by more than ``tolerance`` voxels, or after ``iterations``. Converges
    where u is a contraction; the step is halved wherever a voxel's update grows, which keeps stronger
    fields from oscillating. A field that folds has no inverse and gets the nearest the iteration finds.
    """
    u = displacement.tensor
    v = -u
    step = u.new_ones((u.shape[0], 1, *u.shape[2:]))
    previous = None
    for _ in range(iterations):
        change = -kernels.warp(u, v, "linear", "border") - v
        size = change.square().sum(dim=1, keepdim=True).sqrt()
        if float(size.max()) <= tolerance:
            break
        if previous is not None:
            step = (step * (1 - 0.5 * (size > previous).to(u.dtype))).clamp_min(0.125)
        previous = size
        v = v + step * change
    return Displacement(v, displacement.grid)
