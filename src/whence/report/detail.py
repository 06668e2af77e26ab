"""How much of a volume the page keeps: coarser images and fields where the whole would be too large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from whence.field import Displacement
from whence.space import Grid, Volume


@dataclass(frozen=True)
class Detail:
    """Every how many voxels, along each axis, the page keeps one: of images and of fields."""

    image: int = 1
    field: int = 1


# Images lose first, since the points are what the page is for.
LADDER = (Detail(), Detail(2, 1), Detail(2, 2), Detail(3, 2), Detail(3, 3), Detail(4, 4), Detail(6, 6), Detail(8, 8))


def coarser(grid: Grid, factor: int) -> Grid:
    """Grid of every ``factor`` voxels, each at the middle of the block of voxels it stands for."""
    if factor == 1:
        return grid
    dims = grid.dims
    blocks = np.minimum(factor, np.asarray(grid.shape))
    shape = -(-np.asarray(grid.shape) // blocks)
    affine = grid.affine.copy()
    affine[:dims, :dims] = grid.affine[:dims, :dims] * blocks
    affine[:dims, dims] = grid.to_world((blocks - 1) / 2)
    return Grid(tuple(shape), affine)


def shrink_image(volume: Volume, factor: int) -> Volume:
    """Means of blocks of voxels; the outer voxels are repeated where a block is not full."""
    if factor == 1:
        return volume
    grid = coarser(volume.grid, factor)
    blocks = [min(factor, n) for n in volume.grid.shape]
    padding: list[int] = []
    for have, block, blocks_along in zip(volume.grid.shape, blocks, grid.shape, strict=True):
        padding = [0, block * blocks_along - have, *padding]
    tensor = F.pad(volume.tensor.float(), padding, mode="replicate")
    pool = F.avg_pool2d if volume.dims == 2 else F.avg_pool3d
    return Volume(pool(tensor, blocks), grid)


def shrink_labels(volume: Volume, factor: int) -> Volume:
    """The label nearest to the middle of each block of voxels."""
    if factor == 1:
        return volume
    grid = coarser(volume.grid, factor)
    tensor = volume.tensor
    for axis, (have, along) in enumerate(zip(volume.grid.shape, grid.shape, strict=True)):
        block = min(factor, have)
        picks = torch.clamp(torch.arange(along) * block + block // 2, max=have - 1)
        tensor = tensor.index_select(axis + 2, picks)
    return Volume(tensor, grid)


def shrink_field(displacement: Displacement, factor: int) -> Displacement:
    """The same map sampled on the coarser grid."""
    return displacement if factor == 1 else displacement.resampled(coarser(displacement.grid, factor))


def field_error(kept: Displacement, quantum: float, displacement: Displacement) -> float:
    """Largest distance in mm between a kept, quantised field and the field itself, at its voxels."""
    rounding = quantum / 2 * displacement.grid.dims**0.5
    if kept is displacement:
        return rounding
    difference = kept.resampled(displacement.grid).to_world() - displacement.to_world()
    return rounding + float(difference.square().sum(dim=1).sqrt().max())
