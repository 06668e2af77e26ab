"""Inverse of a plain displacement."""

from __future__ import annotations

from whence import kernels
from whence.field.displacement import Displacement


def invert(displacement: Displacement, iterations: int = 100, tolerance: float = 1e-3) -> Displacement:
    """Inverse field on the same grid: for every voxel the point that is sent there, by Newton's method.

    A voxel is done when it is off by no more than ``tolerance`` voxels, or after ``iterations`` evaluations. A field
    that folds has no inverse and gets the nearest that is found.
    """
    here = kernels.identity(displacement.grid.shape, displacement.tensor.device, displacement.tensor.dtype)
    return Displacement(kernels.solve(displacement.tensor, here, tolerance, iterations) - here, displacement.grid)
