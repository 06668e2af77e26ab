"""Inverse of a plain displacement."""

from __future__ import annotations

from whence import kernels
from whence.field.displacement import Displacement


def invert(displacement: Displacement, iterations: int = 100, tolerance: float = 1e-3) -> Displacement:
    """Inverse field on the same grid by fixed point, v <- -u o (id + v) (Chen et al. 2008).

    Stops when no voxel is off by more than ``tolerance`` voxels, or after ``iterations``. A field that folds
    has no inverse and gets the nearest the iteration finds.
    """
    here = kernels.identity(displacement.grid.shape, displacement.tensor.device, displacement.tensor.dtype)
    return Displacement(kernels.solve(displacement.tensor, here, tolerance, iterations) - here, displacement.grid)
