"""Grid: the shape of an array and the affine that places its voxels in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel lattice of D dimensions with its place in the world.

    ``affine`` is the (D+1, D+1) float64 matrix from voxel indices (centres at integers) to world
    coordinates in mm, RAS+ (the convention of NIfTI and nibabel); a 2D grid lives in the plane
    (R, A). Axis d of ``shape`` is axis d of a tensor's spatial part.

    Raises ValueError for an empty shape, an affine of another size, or a singular one.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        dims = len(shape)
        if dims not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a grid has 2 or 3 axes of at least one voxel; got shape {shape}")
        if affine.shape != (dims + 1, dims + 1):
            raise ValueError(f"a grid of shape {shape} needs an affine of {dims + 1}x{dims + 1}; got {affine.shape}")
        linear = affine[:dims, :dims]
        lengths = np.linalg.norm(linear, axis=0)
        volume = abs(np.linalg.det(linear)) if np.isfinite(affine).all() else 0.0
        if volume <= 1e-6 * float(np.prod(lengths)) or volume == 0.0:
            raise ValueError(f"the affine is singular or not finite: {affine.tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def regular(cls, shape: tuple[int, ...], spacing: float | tuple[float, ...] = 1.0, centred: bool = False) -> Grid:
        """Axis-aligned RAS grid of a spacing in mm, its first voxel (or its centre) at the world's origin."""
        dims = len(shape)
        steps = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (dims,))
        affine = np.diag([*steps, 1.0])
        if centred:
            affine[:dims, dims] = -steps * (np.asarray(shape) - 1) / 2
        return cls(tuple(shape), affine)

    @property
    def dims(self) -> int:
        return len(self.shape)

    @property
    def spacing(self) -> np.ndarray:
        """Distance between neighbouring voxel centres along each axis, mm, shape (D,)."""
        return np.linalg.norm(self.affine[: self.dims, : self.dims], axis=0)

    @property
    def centre(self) -> np.ndarray:
        """World position of the middle of the grid, RAS mm, shape (D,)."""
        return self.to_world((np.asarray(self.shape, dtype=np.float64) - 1) / 2)

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """World points (RAS mm) of voxel coordinates, both (..., D)."""
        voxels = self._points(voxels)
        return voxels @ self.affine[: self.dims, : self.dims].T + self.affine[: self.dims, self.dims]

    def to_voxel(self, world: np.ndarray) -> np.ndarray:
        """Voxel coordinates of world points (RAS mm), both (..., D)."""
        offset = self._points(world) - self.affine[: self.dims, self.dims]
        return np.linalg.solve(self.affine[: self.dims, : self.dims], offset[..., None])[..., 0]

    def contains(self, world: np.ndarray, margin: float = 0.5) -> np.ndarray:
        """Which world points (..., D) lie in the field of view, half a voxel beyond the outer centres."""
        voxels = self.to_voxel(world)
        return np.all((voxels >= -margin) & (voxels <= np.asarray(self.shape) - 1 + margin), axis=-1)

    def voxel_map(self, other: Grid) -> np.ndarray:
        """Affine (D+1, D+1) from voxel coordinates of this grid to those of another one."""
        self._same_dims(other)
        return np.linalg.solve(other.affine, self.affine)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both have one shape and no voxel centre differs by more than a share of a voxel."""
        if self.shape != other.shape:
            return False
        corners = self._corners()
        shift = np.abs(other.to_voxel(self.to_world(corners)) - corners)
        return bool(shift.max() <= tolerance)

    def canonical(self) -> Grid:
        """The same lattice with axes permuted and flipped to lie as near to R, A(, S) as they can."""
        return self._reordered(*self._nearest_axes())

    def to_canonical(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor (B, C, *spatial) with this grid's axes as ``canonical`` has them: permuted and flipped alone."""
        permutation, flipped = self._nearest_axes()
        turned = tensor.permute(0, 1, *(2 + axis for axis in permutation))
        return turned.flip([2 + axis for axis, flip in enumerate(flipped) if flip])

    def resampled(self, spacing: float | tuple[float, ...]) -> Grid:
        """Grid of another spacing (mm) over the same field of view, same orientation and centre."""
        old = self.spacing
        new = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (self.dims,))
        shape = np.maximum(1, np.round(np.asarray(self.shape) * old / new)).astype(int)
        linear = self.affine[: self.dims, : self.dims] * (new / old)
        affine = np.eye(self.dims + 1)
        affine[: self.dims, : self.dims] = linear
        affine[: self.dims, self.dims] = self.centre - linear @ ((shape - 1) / 2)
        return Grid(tuple(shape), affine)

    def cropped(self, start: tuple[int, ...], shape: tuple[int, ...]) -> Grid:
        """Sub-grid (or, with a negative start or a larger shape, a padded one), voxels unmoved."""
        affine = self.affine.copy()
        affine[: self.dims, self.dims] = self.to_world(np.asarray(start, dtype=np.float64))
        return Grid(tuple(shape), affine)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def __repr__(self) -> str:
        spacing = "x".join(f"{s:.4g}" for s in self.spacing)
        return f"Grid({'x'.join(map(str, self.shape))} at {spacing} mm)"

    def _points(self, points: np.ndarray) -> np.ndarray:
        array = np.asarray(points, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != self.dims:
            raise ValueError(f"points of a {self.dims}D grid have {self.dims} coordinates; got shape {array.shape}")
        return array

    def _same_dims(self, other: Grid) -> None:
        if self.dims != other.dims:
            raise ValueError(f"a {self.dims}D grid {self.shape} cannot meet a {other.dims}D one {other.shape}")

    def _corners(self) -> np.ndarray:
        ends = [(0.0, n - 1.0) for n in self.shape]
        return np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, self.dims)

    def _nearest_axes(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """For each world axis the array axis nearest to it, and whether that one runs backwards."""
        cosines = self.affine[: self.dims, : self.dims] / self.spacing
        left = cosines.copy()
        permutation = [0] * self.dims
        flipped = [False] * self.dims
        for _ in range(self.dims):
            world, array = np.unravel_index(np.abs(left).argmax(), left.shape)
            permutation[world] = int(array)
            flipped[world] = bool(cosines[world, array] < 0)
            left[world, :] = 0
            left[:, array] = 0
        return tuple(permutation), tuple(flipped)

    def _reordered(self, permutation: tuple[int, ...], flipped: tuple[bool, ...]) -> Grid:
        change = np.zeros((self.dims + 1, self.dims + 1))
        change[self.dims, self.dims] = 1
        for new, (old, flip) in enumerate(zip(permutation, flipped, strict=True)):
            change[old, new] = -1 if flip else 1
            change[old, self.dims] = self.shape[old] - 1 if flip else 0
        return Grid(tuple(self.shape[a] for a in permutation), self.affine @ change)
