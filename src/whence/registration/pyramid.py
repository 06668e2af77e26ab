"""Images at a level of resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from whence import kernels
from whence.field import resample
from whence.space import Grid, Volume

# Shortest axis a level may have, in voxels.
SMALLEST = 8
# Room about what an image shows, mm.
MARGIN = 10.0


@dataclass(frozen=True, eq=False)
class Seen:
    """An image on a grid, (1, C, *spatial), and where it counts (1, 1, *spatial), None for everywhere."""

    grid: Grid
    image: torch.Tensor
    weight: torch.Tensor | None = None


def finest(grid: Grid) -> float:
    """Smallest spacing in mm, not counting axes of one voxel."""
    return float(min(s for s, n in zip(grid.spacing, grid.shape, strict=True) if n > 1 or max(grid.shape) == 1))


def coarser(grid: Grid, spacing: float) -> Grid:
    """The grid at a spacing of at least ``spacing`` mm along each axis, which thick slices may have already.

    No axis is brought below a few voxels.
    """
    shape = np.asarray(grid.shape)
    longest = np.maximum(grid.spacing, grid.spacing * shape / SMALLEST)
    wanted = np.clip(spacing, grid.spacing, longest)
    return grid if np.allclose(wanted, grid.spacing) else grid.resampled(tuple(wanted))


def seen_on(grid: Grid, volume: Volume, mask: Volume | None, alone: bool = False) -> Seen:
    """An image smoothed to a grid's spacing and brought there; a mask counts for nothing beyond its image.

    What a mask shuts out does not leak into what it lets through, unless the other image has no mask (``alone``): there
    it would, and things of one contrast would no longer look alike.
    """
    plain = _brought(volume, grid, "border")
    if mask is None:
        return Seen(grid, plain)
    share = _brought(mask, grid, "zeros").clamp(0, 1)
    if alone:
        return Seen(grid, plain, share)
    kept = _brought(volume.with_tensor(volume.tensor * mask.tensor.float()), grid, "zeros")
    return Seen(grid, torch.where(share > 0.05, kept / share.clamp_min(0.05), plain), share)


def presence(moving: Volume, mask: Volume | None) -> Volume | None:
    """Where a moving image counts: in its mask, else wherever it is.

    None, for everywhere, where an image without a mask ends in plain background, which then goes on beyond it.
    """
    if mask is not None:
        return mask
    # Coarsely, where noise is averaged away.
    coarse = _brought(moving, coarser(moving.grid, 4 * finest(moving.grid)), "border")
    if _ends_in_background(coarse):
        return None
    return moving.with_tensor(torch.ones_like(moving.tensor[:, :1]))


def reaching(grid: Grid, other: Grid, most: float = 0.25) -> tuple[Grid, tuple[int, ...]]:
    """A grid with as many further voxels on each side as ``other`` fills, and where the first one of it now lies.

    A side grows by no more than ``most`` of its length.
    """
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in other.shape], indexing="ij"), axis=-1).reshape(-1, grid.dims)
    corners = grid.to_voxel(other.to_world(ends.astype(np.float64)))
    shape = np.asarray(grid.shape)
    # Axes of one voxel are no place to move along.
    room = np.where(shape > 1, np.ceil(most * shape), 0)
    before = np.clip(np.ceil(-corners.min(axis=0)), 0, room).astype(int)
    after = np.clip(np.ceil(corners.max(axis=0) - (shape - 1)), 0, room).astype(int)
    larger = tuple(int(n) for n in shape + before + after)
    return grid.cropped(tuple(int(-b) for b in before), larger), tuple(int(b) for b in before)


def _brought(volume: Volume, grid: Grid, outside: str) -> torch.Tensor:
    smooth = volume.with_tensor(kernels.gaussian(volume.tensor.float(), smoothing(volume.grid, grid)))
    return resample(smooth, grid, outside=outside).tensor


def _ends_in_background(image: torch.Tensor) -> bool:
    """Whether nearly all of an image's border is its lowest value."""
    low, faces = image.amin(), []
    for axis in range(2, image.ndim):
        if image.shape[axis] > 1:
            faces += [image.select(axis, 0).flatten(), image.select(axis, -1).flatten()]
    border = torch.cat(faces) if faces else image.flatten()
    return bool((border <= low + 0.05).float().mean() > 0.9)


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


def region(volume: Volume, mask: Volume | None) -> Grid:
    """The part of an image's grid that holds more than background, with a margin of 10 mm, less for what is small.

    Background is what an image (or a mask) has at its lowest value.
    """
    image, grid = (volume if mask is None else mask).tensor[0], volume.grid
    content = (image > image.amin()).any(dim=0)
    if not bool(content.any()):
        return grid
    places = [torch.nonzero(content.movedim(axis, 0).flatten(1).any(dim=1))[:, 0] for axis in range(grid.dims)]
    ends = [(int(there[0]), int(there[-1])) for there in places]
    longest = max((high - low + 1) * spacing for (low, high), spacing in zip(ends, grid.spacing, strict=True))
    start, shape = [], []
    for (low, high), size, spacing in zip(ends, grid.shape, grid.spacing, strict=True):
        pad = int(np.ceil(min(MARGIN, longest / 15) / spacing))
        start.append(max(low - pad, 0))
        shape.append(min(high + pad + 1, size) - start[-1])
    return grid.cropped(tuple(start), tuple(shape))
