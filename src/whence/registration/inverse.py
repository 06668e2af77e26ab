"""Total maps and their inverses."""

from __future__ import annotations

import numpy as np
import torch

from whence import kernels
from whence.field import Displacement
from whence.field.displacement import coordinates_in, lattice
from whence.space import Grid


def inverse_on(grid: Grid, field: Displacement) -> Displacement:
    """The inverse of a displacement on any grid of its world, to a hundredth of a voxel of the field."""
    points = kernels.solve(field.tensor, coordinates_in(grid, field.grid), 0.01)
    change = field.grid.voxel_map(grid)
    return Displacement(_mapped(change, points) - kernels.identity(grid.shape), grid)


def total(matrix: np.ndarray, field: Displacement) -> Displacement:
    """p -> A(p + u(p)): a displacement followed by an affine of the world (RAS mm), on the field's grid."""
    inside = np.linalg.solve(field.grid.affine, np.asarray(matrix, dtype=np.float64) @ field.grid.affine)
    linear = torch.from_numpy(np.ascontiguousarray(inside[:-1, :-1])).float()
    own = lattice(inside - np.eye(field.grid.dims + 1), field.grid.shape).float()
    return Displacement(own + (linear @ field.tensor.flatten(2)).reshape(field.tensor.shape), field.grid)


def total_inverse(matrix: np.ndarray, field: Displacement, grid: Grid) -> Displacement:
    """The inverse of ``total`` on the moving image's grid."""
    seen = Grid(grid.shape, np.linalg.solve(np.asarray(matrix, dtype=np.float64), grid.affine))
    points = kernels.solve(field.tensor, coordinates_in(seen, field.grid), 0.01)
    return Displacement(_mapped(field.grid.voxel_map(grid), points) - kernels.identity(grid.shape), grid)


def _mapped(change: np.ndarray, points: torch.Tensor) -> torch.Tensor:
    """Points (1, D, *spatial) through a matrix (D+1, D+1)."""
    dims = points.shape[1]
    linear = torch.from_numpy(np.ascontiguousarray(change[:dims, :dims])).to(points)
    shift = torch.from_numpy(np.ascontiguousarray(change[:dims, dims])).to(points)
    moved = linear @ points.flatten(2) + shift[:, None]
    return moved.reshape(points.shape)
