"""Errors of fields, in mm, and how well an inverse undoes one, in voxels."""

from __future__ import annotations

import numpy as np
import torch

from whence.field import Displacement, compose
from whence.space import Grid


def displacement_error(displacement: Displacement, truth: Displacement) -> torch.Tensor:
    """Length of the difference of two fields on one grid at every voxel, mm, (B, 1, *spatial)."""
    if displacement.grid != truth.grid:
        raise ValueError(f"fields on one grid are compared; got {displacement.grid} and {truth.grid}")
    return (displacement.to_world() - truth.to_world()).square().sum(dim=1, keepdim=True).sqrt()


def target_registration_error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of found and true landmarks (N, D), mm, (N,)."""
    return np.linalg.norm(np.asarray(found) - np.asarray(truth), axis=1)


def distance_to(mask: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Distance in mm of every voxel from a mask (1, 1, *spatial), 0 inside; infinite if it is empty."""
    from scipy import ndimage

    inside = mask[0, 0].bool().cpu().numpy()
    if not inside.any():
        return torch.full((1, 1, *grid.shape), float("inf"))
    distance = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
    return torch.from_numpy(distance.astype(np.float32))[None, None]


def inverse_error(displacement: Displacement, inverse: Displacement) -> torch.Tensor:
    """|whither(whence(p)) - p| at every voxel p of the output, voxels, (B, 1, *spatial)."""
    return compose(displacement, inverse).tensor.square().sum(dim=1, keepdim=True).sqrt()
