"""Diffeomorphic registration, coarse to fine, of two images in one world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from whence import kernels
from whence.field import Displacement
from whence.losses import Similarity, make_similarity
from whence.registration.adam import Adam
from whence.registration.convergence import Convergence
from whence.registration.force import pull
from whence.registration.intensity import scaled
from whence.registration.inverse import inverse_on
from whence.registration.pyramid import Level, at, coarser, region
from whence.registration.settings import DiffeomorphicSettings
from whence.registration.transforms import TRANSFORMS, Transform
from whence.space import Grid, Volume

# Local correlation for images whose every detail counts: windows of the faintest contrast do.
FINE = {"window": 9, "epsilon": 3e-4}
# Called with the stage or level, the iteration within it, of how many, and the energy.
Progress = Callable[[str, int, int, float], None]


def register_diffeomorphic(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None = None,
    settings: DiffeomorphicSettings | None = None,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    progress: Progress | None = None,
) -> tuple[Displacement, Displacement]:
    """Displacement on the fixed grid that carries ``moving`` onto ``fixed``, and its inverse on the moving grid.

    The images lie in one world, roughly aligned, on grids of their own; of several channels the first counts.
    ``similarity`` is local correlation by default; masks, on the grids of their images, say where it is asked.
    """
    images = scaled(fixed, fixed_mask), scaled(moving, moving_mask)
    field = optimise(*images, similarity, settings, (fixed_mask, moving_mask), progress)
    return field.resampled(fixed.grid), inverse_on(moving.grid, field)


def optimise(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None,
    settings: DiffeomorphicSettings | None,
    masks: tuple[Volume | None, Volume | None] = (None, None),
    progress: Progress | None = None,
) -> Displacement:
    """The displacement on the part of the fixed grid that shows something; scaled images of one channel."""
    similarity = similarity or make_similarity("ncc", **FINE)
    settings = settings or DiffeomorphicSettings()
    whole = region(fixed, masks[0])
    transform: Transform | None = None
    for grid, iterations in _levels(whole, settings):
        level = at(grid, fixed, moving, masks)
        widths = in_voxels(grid, settings.smooth_total)
        transform = TRANSFORMS[settings.transform](grid, widths) if transform is None else transform.on(grid, widths)
        _climb(transform, level, similarity, settings, iterations, progress)
    assert transform is not None
    return Displacement(transform.displacement, transform.grid).resampled(whole)


def in_voxels(grid: Grid, width: float) -> list[float]:
    """A length in voxels of the grid's finest axis, along each axis; 0 for an axis of one voxel."""
    finest = min(s for s, n in zip(grid.spacing, grid.shape, strict=True) if n > 1 or max(grid.shape) == 1)
    return [float(width * finest / s) if n > 1 else 0.0 for s, n in zip(grid.spacing, grid.shape, strict=True)]


def _levels(whole: Grid, settings: DiffeomorphicSettings) -> list[tuple[Grid, int]]:
    """Grids with their iterations; of levels that a small image cannot tell apart the last remains."""
    finest = float(min(s for s, n in zip(whole.spacing, whole.shape, strict=True) if n > 1 or max(whole.shape) == 1))
    found: dict[tuple[int, ...], tuple[Grid, int]] = {}
    for factor, iterations in zip(settings.levels, settings.iterations, strict=True):
        grid = coarser(whole, factor * finest)
        if iterations > 0:
            found[grid.shape] = (grid, iterations)
    return list(found.values()) or [(whole, 0)]


def _climb(
    transform: Transform,
    level: Level,
    similarity: Similarity,
    settings: DiffeomorphicSettings,
    iterations: int,
    progress: Progress | None,
) -> None:
    """The iterations of a level."""
    # Forces are vectors of mm, so that thick slices are pulled no further than thin ones.
    scale = in_voxels(level.grid, 1.0)
    widths = in_voxels(level.grid, settings.smooth_step)
    adam, convergence = (
        Adam(settings.floor),
        Convergence(settings.patience, settings.tolerance),
    )
    name = f"{np.round(min(level.grid.spacing), 2):g} mm"
    for iteration in range(iterations):
        warped = kernels.warp(level.moving, transform.displacement)
        weight = _weight(level, transform.displacement)
        energy, force = pull(similarity, warped, level.fixed, weight, scale)
        if progress is not None:
            progress(name, iteration, iterations, energy)
        transform.take(adam(kernels.gaussian(force, widths), settings.step, scale))
        if convergence.done(energy):
            break


def _weight(level: Level, displacement: torch.Tensor) -> torch.Tensor | None:
    """Where both images count, given how the moving one lies now."""
    if level.moving_mask is None:
        return level.fixed_mask
    carried = kernels.warp(level.moving_mask, displacement, "linear", "zeros")
    return carried if level.fixed_mask is None else carried * level.fixed_mask
