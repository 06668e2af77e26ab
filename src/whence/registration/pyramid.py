"""The two images at a level of resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from whence import kernels
from whence.field import resample
from whence.space import Grid, Volume

# Shortest axis a level may have, in voxels.
SMALLEST = 8


@dataclass(frozen=True, eq=False)
class Level:
    """Both images on one grid, and where they count: each a tensor (1, C, *spatial), masks None for everywhere."""

    grid: Grid
    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_mask: torch.Tensor | None = None
    moving_mask: torch.Tensor | None = None


def coarser(grid: Grid, spacing: float) -> Grid:
    """The grid at a spacing of at least ``spacing`` mm along each axis, which thick slices may have already.

    No axis is brought below a few voxels.
    """
    shape = np.asarray(grid.shape)
    longest = np.maximum(grid.spacing, grid.spacing * shape / SMALLEST)
    wanted = np.clip(spacing, grid.spacing, longest)
    return grid if np.allclose(wanted, grid.spacing) else grid.resampled(tuple(wanted))


def at(grid: Grid, fixed: Volume, moving: Volume, masks: tuple[Volume | None, Volume | None]) -> Level:
    """The level of a grid; images finer than it are smoothed first, each within its mask."""
    weights = [None if mask is None else brought(mask, grid).clamp(0, 1) for mask in masks]
    images = [within(image, mask, grid) for image, mask in zip((fixed, moving), masks, strict=True)]
    return Level(grid, *images, *weights)


def within(volume: Volume, mask: Volume | None, grid: Grid) -> torch.Tensor:
    """As ``brought``, but what a mask shuts out does not leak into what it lets through."""
    plain = brought(volume, grid)
    if mask is None:
        return plain
    share = brought(mask, grid)
    kept = brought(volume.with_tensor(volume.tensor * mask.tensor.float()), grid)
    return torch.where(share > 0.05, kept / share.clamp_min(0.05), plain)


def brought(volume: Volume, grid: Grid) -> torch.Tensor:
    """A volume smoothed to a grid's spacing and resampled on it."""
    smooth = volume.with_tensor(kernels.gaussian(volume.tensor.float(), smoothing(volume.grid, grid)))
    return resample(smooth, grid).tensor


def smoothing(finer: Grid, grid: Grid) -> list[float]:
    """Gaussian widths, in voxels of ``finer``, that keep a resampling on ``grid`` free of aliasing."""
    ratios = _reach(finer, grid) / finer.spacing
    return [float(0.5 * ratio) if ratio > 1.2 else 0.0 for ratio in ratios]


def _reach(finer: Grid, grid: Grid) -> np.ndarray:
    """Spacing of a grid as met along the axes of another one."""
    cosines = np.abs((finer.affine[:-1, :-1] / finer.spacing).T @ (grid.affine[:-1, :-1] / grid.spacing))
    return (cosines**2 @ grid.spacing) / (cosines**2).sum(axis=1)


def seen_through(matrix: np.ndarray, moving: Volume) -> Volume:
    """The moving image where an affine (fixed to moving world) shows it in the fixed one's world."""
    return Volume(moving.tensor, Grid(moving.grid.shape, np.linalg.solve(matrix, moving.grid.affine)))


def region(fixed: Volume, mask: Volume | None, margin: float = 10.0) -> Grid:
    """The part of the fixed grid that holds more than background, with a margin in mm.

    Background is what an image (or a mask) has at its lowest value.
    """
    image = (fixed if mask is None else mask).tensor[0]
    content = (image > image.amin()).any(dim=0)
    if not bool(content.any()):
        return fixed.grid
    start, shape = [], []
    for axis, (size, spacing) in enumerate(zip(fixed.grid.shape, fixed.grid.spacing, strict=True)):
        there = torch.nonzero(content.movedim(axis, 0).flatten(1).any(dim=1) if content.ndim > 1 else content)
        pad = int(np.ceil(margin / spacing))
        low, high = max(int(there.min()) - pad, 0), min(int(there.max()) + pad + 1, size)
        start.append(low)
        shape.append(high - low)
    return fixed.grid.cropped(tuple(start), tuple(shape))
