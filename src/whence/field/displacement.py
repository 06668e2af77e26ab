"""Displacement: u on the grid of the output, phi(p) = p + u(p)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from whence import kernels
from whence.space import Grid


@dataclass(frozen=True, eq=False)
class Displacement:
    """Displacement tensor (B, D, *spatial) in voxels of its grid, component d along tensor axis d.

    It pulls back: ``moved(p) = moving(p + u(p))`` for p on ``grid``, the grid of the output. The moving
    image may live on any grid of the same world.
    Raises ValueError if the tensor does not fit the grid.
    """

    tensor: torch.Tensor
    grid: Grid

    def __post_init__(self) -> None:
        expected = (self.grid.dims, *self.grid.shape)
        if tuple(self.tensor.shape[1:]) != expected:
            raise ValueError(f"a displacement on {self.grid} is (B, {expected}); got {tuple(self.tensor.shape)}")

    @classmethod
    def identity(cls, grid: Grid) -> Displacement:
        """The field that moves nothing."""
        return cls(torch.zeros((1, grid.dims, *grid.shape)), grid)

    @classmethod
    def from_world(cls, vectors: torch.Tensor, grid: Grid) -> Displacement:
        """From vectors (B, D, *spatial) in RAS mm at the voxels of a grid."""
        linear = np.linalg.inv(grid.affine[: grid.dims, : grid.dims])
        return cls(_rotate(vectors, linear), grid)

    @classmethod
    def from_affine(cls, matrix: np.ndarray, grid: Grid) -> Displacement:
        """From an affine map (D+1, D+1) of world points (RAS mm), output point to source point."""
        inside = np.linalg.solve(grid.affine, np.asarray(matrix, dtype=np.float64) @ grid.affine)
        # u = phi - id, without the digits that a difference of large coordinates would lose.
        return cls(lattice(inside - np.eye(grid.dims + 1), grid.shape).float(), grid)

    def to_world(self) -> torch.Tensor:
        """Displacement vectors in RAS mm, (B, D, *spatial)."""
        return _rotate(self.tensor, self.grid.affine[: self.grid.dims, : self.grid.dims])

    def magnitude(self) -> torch.Tensor:
        """How far each voxel moved, mm, (B, 1, *spatial)."""
        return self.to_world().square().sum(dim=1, keepdim=True).sqrt()

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """phi of world points (N, D): where each output point comes from, RAS mm.

        Beyond the grid's outer voxels the field continues with its border value.
        """
        points = np.asarray(points, dtype=np.float64)
        moved = kernels.sample(self.tensor, self._voxels(points), "linear", "border")[0].T
        linear = self.grid.affine[: self.grid.dims, : self.grid.dims]
        return points + moved.detach().cpu().double().numpy() @ linear.T

    def preimage(self, points: np.ndarray, near: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
        """World points (N, D) that phi sends to ``points``, RAS mm, sought from ``near``, within a share of a voxel.

        Where there is none, the nearest that was found.
        """
        points, near = np.asarray(points, dtype=np.float64), np.asarray(near, dtype=np.float64)
        targets, start = self._voxels(points), self._voxels(near)
        found = kernels.solve(self.tensor.detach(), targets, tolerance, start=start) - start
        linear = self.grid.affine[: self.grid.dims, : self.grid.dims]
        return near + found[0].T.cpu().double().numpy() @ linear.T

    def _voxels(self, points: np.ndarray) -> torch.Tensor:
        """World points (N, D) in voxels, (1, D, N)."""
        if points.ndim != 2 or points.shape[1] != self.grid.dims:
            raise ValueError(f"expected points (N, {self.grid.dims}) in mm; got shape {points.shape}")
        if self.tensor.shape[0] != 1:
            raise ValueError(f"points go through one field; got a batch of {self.tensor.shape[0]}")
        return torch.from_numpy(self.grid.to_voxel(points).T[None]).to(self.tensor)

    def resampled(self, grid: Grid) -> Displacement:
        """The same map on another grid, linear in between, its border value beyond."""
        if grid == self.grid:
            return self
        coordinates = coordinates_in(grid, self.grid, self.tensor.device)
        vectors = kernels.sample(self.to_world(), coordinates, "linear", "border")
        return Displacement.from_world(vectors, grid)

    def detach(self) -> Displacement:
        """Without its gradient, on the CPU."""
        return Displacement(self.tensor.detach().cpu(), self.grid)


def coordinates_in(output: Grid, source: Grid, device: torch.device | None = None) -> torch.Tensor:
    """Voxel coordinates in ``source`` of every voxel of ``output``, (1, D, *output.shape)."""
    return lattice(output.voxel_map(source), output.shape).float().to(device)


def lattice(matrix: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Where an affine (D+1, D+1) sends the voxels of a lattice, (1, D, *shape), float64."""
    dims = len(shape)
    result = torch.empty((1, dims, *shape), dtype=torch.float64)
    for row in range(dims):
        place = result[0, row]
        place.fill_(float(matrix[row, dims]))
        for axis, size in enumerate(shape):
            along = torch.arange(size, dtype=torch.float64) * float(matrix[row, axis])
            place += along.reshape(-1, *[1] * (dims - 1 - axis))
    return result


def _rotate(vectors: torch.Tensor, linear: np.ndarray) -> torch.Tensor:
    matrix = torch.from_numpy(np.ascontiguousarray(linear)).to(vectors)
    return (matrix @ vectors.flatten(2)).reshape(vectors.shape)
