"""Real anatomy without a download: the MNI ICBM152 maps that the package nilearn carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from whence import kernels
from whence.field import Displacement
from whence.space import Grid

# Order of the channels of every map array.
T1, GM, WM, BRAIN = range(4)
FIELD_OF_VIEW = 208.0  # mm: the widest subject fits, with a rim of background
CENTRE = (0.0, -17.0, 6.0)  # world position (RAS mm) of the middle of the field of view
LEVELS = (-6, 50)  # axial levels (mm) that show much brain


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Maps (4, *spatial), float32 in 0..1 (T1, grey matter, white matter, brain), on a grid in RAS mm.

    A 2D anatomy is an axial level, in the plane (R, A).
    """

    maps: torch.Tensor
    grid: Grid

    def sample(self, points: torch.Tensor) -> torch.Tensor:
        """Maps at world points (D, *out) in RAS mm, linear, zero outside, as (4, *out)."""
        return kernels.sample(self.maps[None], to_voxel(points, self.grid)[None], "linear", "zeros")[0]


def anatomy(dims: int, spacing: float, level: int = 12) -> Anatomy:
    """The head (3D) or its axial slice at a level in mm (2D), smoothed for sampling at a spacing in mm."""
    width = round(max(0.0, 0.3 * spacing - 0.3), 1)
    if dims == 3:
        return _head(width)
    head = _head(0.0)
    row = round(float(level - head.grid.affine[2, 3]))
    maps = head.maps[..., row]
    if width > 0:
        maps = torch.from_numpy(ndimage.gaussian_filter(maps.numpy(), (0, width, width)))
    flat = np.eye(3)
    flat[:2, 2] = head.grid.affine[:2, 3]
    return Anatomy(maps.contiguous(), Grid(maps.shape[1:], flat))


def head_grid(size: int, dims: int, field_of_view: float = FIELD_OF_VIEW) -> Grid:
    """Cubic grid of ``size`` voxels a side over the whole head, RAS."""
    spacing = field_of_view / size
    affine = np.diag([spacing] * dims + [1.0])
    affine[:dims, dims] = np.asarray(CENTRE[:dims]) - spacing * (size - 1) / 2
    return Grid((size,) * dims, affine)


def to_voxel(points: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Voxel coordinates of world points (D, ...) in a grid whose axes are the world's."""
    shape = (-1, *[1] * (points.ndim - 1))
    offset = torch.tensor(grid.affine[: grid.dims, grid.dims]).to(points).reshape(shape)
    step = torch.tensor(np.diag(grid.affine)[: grid.dims].copy()).to(points).reshape(shape)
    return (points - offset) / step


def to_world(voxels: torch.Tensor, grid: Grid) -> torch.Tensor:
    """World points (RAS mm) of voxel coordinates (D, ...) in a grid whose axes are the world's."""
    shape = (-1, *[1] * (voxels.ndim - 1))
    offset = torch.tensor(grid.affine[: grid.dims, grid.dims]).to(voxels).reshape(shape)
    step = torch.tensor(np.diag(grid.affine)[: grid.dims].copy()).to(voxels).reshape(shape)
    return voxels * step + offset


def reached(displacement: Displacement) -> torch.Tensor:
    """phi of every voxel in voxel coordinates, (D, *spatial)."""
    return kernels.identity(displacement.grid.shape)[0] + displacement.tensor[0]


@lru_cache(maxsize=3)
def _head(width: float) -> Anatomy:
    """All maps at 1 mm, cropped to the brain, smoothed by a Gaussian of ``width`` mm."""
    if width > 0:
        sharp = _head(0.0)
        smooth = ndimage.gaussian_filter(sharp.maps.numpy(), (0, width, width, width))
        return Anatomy(torch.from_numpy(smooth), sharp.grid)
    from nilearn import datasets

    images = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    ]
    maps = np.stack([np.asarray(image.dataobj, dtype=np.float32) for image in images])
    inside = maps[BRAIN] > 0
    maps[T1] *= inside
    edges = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != d))) for d in range(3)]
    start = [max(0, int(e[0]) - 4) for e in edges]
    stop = [int(e[-1]) + 5 for e in edges]
    maps = maps[:, start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    grid = Grid(images[0].shape, images[0].affine).cropped(tuple(start), maps.shape[1:])
    return Anatomy(torch.from_numpy(np.ascontiguousarray(maps)), grid)
