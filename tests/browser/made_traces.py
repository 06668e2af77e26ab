"""Traces on awkward grids, from analytic images and smooth fields."""

from __future__ import annotations

import numpy as np
import torch

from whence.field import Displacement, exp, warp
from whence.space import Grid, Volume
from whence.trace import Trace


def turned(degrees: float, dims: int) -> np.ndarray:
    """Rotation in the plane of the first two axes, and in 3D a second one that tilts the third."""
    a = np.deg2rad(degrees)
    turn = np.eye(dims)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    if dims == 2:
        return turn
    tilt = np.eye(3)
    tilt[1:, 1:] = [[np.cos(a / 2), -np.sin(a / 2)], [np.sin(a / 2), np.cos(a / 2)]]
    return tilt @ turn


def oblique(shape: tuple[int, ...], spacing: tuple[float, ...], degrees: float, flips: tuple[int, ...], centre) -> Grid:
    """Grid about a world point, turned, with some array axes running backwards."""
    dims = len(shape)
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = turned(degrees, dims) @ np.diag(np.asarray(spacing) * np.asarray(flips))
    affine[:dims, dims] = np.asarray(centre) - affine[:dims, :dims] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def blobs(grid: Grid) -> Volume:
    """A smooth image of the world, the same whatever grid it is seen on."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    world = grid.to_world(voxels.reshape(-1, grid.dims)).reshape(*grid.shape, grid.dims)
    image = 400 * np.exp(-(world**2).sum(-1) / 2 / 18**2) + 60 * np.sin(world[..., 0] / 4) * np.cos(world[..., 1] / 5)
    return Volume(torch.from_numpy(image.astype(np.float32))[None, None], grid)


def smooth_velocity(grid: Grid, size: float, seed: int) -> Displacement:
    """A sum of a few waves over the grid, in voxels of it."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(0, np.pi, n) for n in grid.shape], indexing="ij")
    waves = [sum(np.sin(rng.uniform(0.5, 2) * a + rng.uniform(0, 6)) for a in axes) for _ in axes]
    return Displacement(torch.from_numpy((size * np.stack(waves) / grid.dims).astype(np.float32))[None], grid)


def make_trace(source_grid: Grid, grid: Grid, seed: int = 0, name: str = "a", **options) -> Trace:
    """A trace whose prediction is the warped source, but for a block of no source."""
    u, v = exp(smooth_velocity(grid, 3.0, seed))
    source = blobs(source_grid)
    warped = warp(source, u)
    image = warped.tensor.clone()
    novelty = torch.full((1, 1, *grid.shape), 0.1)
    hole = tuple(slice(int(n * 0.62), int(n * 0.8)) for n in grid.shape)
    image[(0, 0, *hole)] = -80
    novelty[(0, 0, *hole)] = 0.83
    trace = Trace.build(
        source,
        Volume(image, grid),
        u,
        v.resampled(source_grid),
        method="made",
        novelty=Volume(novelty, grid),
        id=name,
        **options,
    )
    labels = torch.zeros((1, 1, *source_grid.shape), dtype=torch.int16)
    labels[(0, 0, *(slice(n // 4, 3 * n // 4) for n in source_grid.shape))] = 7
    return trace.with_truth(Volume(image + 10, grid), Volume(labels, source_grid))


GRIDS = {
    "plain 2D": (Grid.regular((64, 64), 1.0, centred=True), Grid.regular((64, 64), 1.0, centred=True)),
    "oblique 2D": (
        oblique((70, 48), (0.8, 1.5), 17, (-1, 1), (3, -2)),
        oblique((51, 66), (1.2, 0.9), -11, (1, -1), (1, 4)),
    ),
    "plain 3D": (Grid.regular((40, 44, 36), 1.5, centred=True), Grid.regular((40, 44, 36), 1.5, centred=True)),
    "oblique 3D": (
        oblique((44, 36, 21), (1.3, 1.6, 2.9), 14, (-1, 1, -1), (2, -3, 5)),
        oblique((36, 40, 30), (1.5, 1.4, 1.9), -9, (1, -1, 1), (0, 2, -4)),
    ),
}
