"""A random person: the template's anatomy under a random affine and a random diffeomorphism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from whence import kernels
from whence.data.phantom.anatomy import BRAIN, CENTRE, GM, WM, Anatomy, reached, to_world
from whence.data.phantom.noise import smooth_noise
from whence.field import Displacement, exp
from whence.space import Grid


@dataclass(frozen=True, eq=False)
class Subject:
    """One person's anatomy on a grid.

    ``template_points`` : (D, *shape) tensor, where each voxel lies in the template, RAS mm.
    ``maps`` : (4, *shape) array, the template's maps there (for planning; images sample anew).
    ``depth`` : (*shape) array, distance in mm to the surface of the brain, 0 outside.
    """

    grid: Grid
    template: Anatomy
    template_points: torch.Tensor
    maps: np.ndarray
    depth: np.ndarray

    @property
    def spacing(self) -> float:
        return float(self.grid.spacing[0])

    @property
    def positions(self) -> np.ndarray:
        """World position (D, *shape) of every voxel, RAS mm."""
        return to_world(kernels.identity(self.grid.shape)[0], self.grid).numpy()

    @property
    def csf(self) -> np.ndarray:
        """Share of CSF (*shape) in 0..1."""
        return np.clip(self.maps[BRAIN] - self.maps[GM] - self.maps[WM], 0, 1)

    def seen_from(self, date: Displacement) -> np.ndarray:
        """Template maps (4, *spatial) on a date's grid, sampled once through the composed maps."""
        points = kernels.sample(self.template_points[None], reached(date)[None], "linear", "border")[0]
        return self.template.sample(points).numpy()


def draw_subject(rng: np.random.Generator, template: Anatomy, grid: Grid) -> Subject:
    """A person of random size, pose and folding (no folded voxel) on a grid in RAS mm."""
    dims, spacing = grid.dims, float(grid.spacing[0])
    warp = 2.6 * smooth_noise(rng, grid.shape, 30.0 / spacing, dims)
    warp += 1.2 * smooth_noise(rng, grid.shape, 9.0 / spacing, dims)
    velocity = Displacement(torch.from_numpy(warp.astype(np.float32) / spacing)[None], grid)
    bent = to_world(reached(exp(velocity)[0]), grid)
    matrix = torch.from_numpy(_affine(rng, dims).astype(np.float32))
    middle = torch.tensor(CENTRE[:dims]).reshape(-1, *[1] * dims)
    shift = torch.from_numpy(rng.uniform(-3, 3, dims).astype(np.float32)).reshape(-1, *[1] * dims)
    points = torch.einsum("ij,j...->i...", matrix, bent - middle) + middle + shift
    maps = template.sample(points).numpy()
    depth = ndimage.distance_transform_edt(maps[BRAIN] > 0.5).astype(np.float32) * spacing
    return Subject(grid, template, points, maps, depth)


def _affine(rng: np.random.Generator, dims: int) -> np.ndarray:
    """Rotation by some degrees times a scaling by some per cent, (D, D)."""
    matrix = np.diag(1 / rng.uniform(0.92, 1.02, dims))
    for a in range(dims):
        for b in range(a + 1, dims):
            angle = np.deg2rad(rng.normal(0, 2.5))
            turn = np.eye(dims)
            turn[[a, b], [a, b]] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
    return matrix
