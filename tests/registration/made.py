"""Images with structure, and motions that are known."""

import numpy as np
import torch
from scipy import ndimage

from whence.field import Displacement, exp
from whence.space import Grid, Volume


def head(shape, spacing, seed=0):
    """An off-centre blob with structure inside, dark ground around it."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in shape), indexing="ij")
    radius = sum((a / r) ** 2 for a, r in zip(axes, (0.8, 1.0, 0.9), strict=False))
    inside = ndimage.gaussian_filter((radius < 1).astype(float), 1)
    structure = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    array = inside * np.clip(1 + 0.3 * structure / structure.std(), 0.1, 2)
    return Volume(torch.from_numpy(array.astype(np.float32))[None, None], Grid.regular(shape, spacing, centred=True))


def affine(dims, degrees=7.0, scale=1.06, shift=(7.0, -5.0, 4.0)):
    """An affine of the world, fixed point to moving point."""
    matrix, angle = np.eye(dims + 1), np.deg2rad(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:dims, :dims] *= scale
    matrix[:dims, dims] = shift[:dims]
    return matrix


def motion(grid, size, seed=3, width=6.0):
    """A smooth diffeomorphism of at most about ``size`` voxels, and its inverse."""
    rng = np.random.default_rng(seed)
    velocity = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), width) for _ in range(grid.dims)])
    velocity = torch.from_numpy((velocity * size / np.abs(velocity).max()).astype(np.float32))[None]
    return exp(Displacement(velocity, grid))


def points_inside(volume, count=300, level=0.3, seed=0):
    """World points (N, D) where an image is above a level."""
    found = np.argwhere(volume.numpy() > level).astype(np.float64)
    chosen = np.random.default_rng(seed).choice(len(found), min(count, len(found)), replace=False)
    return volume.grid.to_world(found[chosen])


def through(matrix, points):
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]


def distance(a, b):
    return np.linalg.norm(a - b, axis=1)
