"""Diffeomorphic registration, coarse to fine, of two images in one world."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from whence import kernels
from whence.field import Displacement
from whence.losses import Similarity, across_modalities, make_similarity
from whence.registration.adam import Adam
from whence.registration.convergence import Convergence
from whence.registration.force import pull
from whence.registration.intensity import scaled
from whence.registration.inverse import inverse_on
from whence.registration.pyramid import Seen, coarser, finest, presence, reaching, region, seen_on
from whence.registration.settings import DiffeomorphicSettings
from whence.registration.transforms import TRANSFORMS, Transform
from whence.space import Grid, Volume

# Local correlation for images whose every detail counts: windows of the faintest contrast do.
FINE = {"window": 9, "epsilon": 3e-4}
# Called with the stage or level, the iteration within it, of how many, and the energy.
Progress = Callable[[str, int, int, float], None]


def default_similarity(name: str = "ncc") -> Similarity:
    """A dissimilarity with the options that suit this stage."""
    return make_similarity(name, **(FINE if name == "ncc" else {}))


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
    ``similarity`` is local correlation by default; one with an attribute ``spacing`` is asked at that voxel size (mm)
    alone. Masks, on the grids of their images, say where it is asked; what lies beyond the moving image counts
    nowhere, unless the image ends in plain background.
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
    similarity = similarity or default_similarity()
    settings = settings or DiffeomorphicSettings()
    whole, content = region(fixed, masks[0]), region(moving, masks[1])
    moving_mask = presence(moving, masks[1])
    transform: Transform | None = None
    # A volume of one slice is the slice it is.
    total = settings.smoothing(sum(n > 1 for n in fixed.grid.shape), across_modalities(similarity))
    for grid, iterations, width in _levels(whole, settings, getattr(similarity, "spacing", 0.0)):
        level = _Level.of(seen_on(grid, fixed, masks[0], masks[1] is None), moving, moving_mask, content)
        widths = in_voxels(grid, width * total)
        transform = TRANSFORMS[settings.transform](grid, widths) if transform is None else transform.on(grid, widths)
        smooth = replace(settings, smooth_step=width * settings.smooth_step)
        transform = _climb(transform, level, similarity, smooth, iterations, progress)
    assert transform is not None
    return Displacement(transform.displacement, transform.grid).resampled(whole)


@dataclass(frozen=True, eq=False)
class _Level:
    """Both images at a level, the moving one on the fixed one's lattice continued to where the moving one goes on.

    ``places`` (1, D, *spatial) are the voxels of the fixed lattice in that of the moving image, None where the two
    are one.
    """

    fixed: Seen
    moving: Seen
    places: torch.Tensor | None

    @classmethod
    def of(cls, fixed: Seen, moving: Volume, mask: Volume | None, content: Grid) -> _Level:
        grid, first = reaching(fixed.grid, content)
        seen = seen_on(grid, moving, mask)
        if grid.shape == fixed.grid.shape:
            return cls(fixed, seen, None)
        offset = torch.tensor(first, dtype=torch.float32).reshape(1, -1, *[1] * grid.dims)
        return cls(fixed, seen, kernels.identity(fixed.grid.shape) + offset)

    def carried(self, displacement: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The moving image under a displacement, and where both images count given how it lies now."""
        weight = self.fixed.weight
        if self.moving.weight is not None:
            there = self._sampled(self.moving.weight, displacement, "zeros")
            weight = there if weight is None else there * weight
        return self._sampled(self.moving.image, displacement, "border"), weight

    def _sampled(self, image: torch.Tensor, displacement: torch.Tensor, outside: str) -> torch.Tensor:
        if self.places is None:
            return kernels.warp(image, displacement, "linear", outside)
        return kernels.sample(image, self.places + displacement, "linear", outside)


def in_voxels(grid: Grid, width: float) -> list[float]:
    """A length in voxels of the grid's finest axis, along each axis; 0 for an axis of one voxel."""
    unit = width * finest(grid)
    return [float(unit / s) if n > 1 else 0.0 for s, n in zip(grid.spacing, grid.shape, strict=True)]


def _levels(whole: Grid, settings: DiffeomorphicSettings, spacing: float = 0.0) -> list[tuple[Grid, int, float]]:
    """Grids, their iterations, and by what smoothing is widened; of levels that a small image cannot tell apart the
    last remains.

    A similarity that knows images of one ``spacing`` (mm) alone goes from coarse to fine by the smoothing on one grid.
    """
    if spacing > 0:
        grid = coarser(whole, spacing)
        last = settings.levels[-1]
        stages = zip(settings.levels, settings.iterations, strict=True)
        return [(grid, iterations, factor / last) for factor, iterations in stages if iterations > 0] or [
            (grid, 0, 1.0)
        ]
    found: dict[tuple[int, ...], tuple[Grid, int, float]] = {}
    for factor, iterations in zip(settings.levels, settings.iterations, strict=True):
        grid = coarser(whole, factor * finest(whole))
        if iterations > 0:
            found[grid.shape] = (grid, iterations, 1.0)
    return list(found.values()) or [(whole, 0, 1.0)]


def _climb(
    transform: Transform,
    level: _Level,
    similarity: Similarity,
    settings: DiffeomorphicSettings,
    iterations: int,
    progress: Progress | None,
) -> Transform:
    """The best map that the iterations of a level come by, which is no worse than where they begin."""
    # Forces are vectors of mm, so that thick slices are pulled no further than thin ones.
    scale = in_voxels(transform.grid, 1.0)
    widths = in_voxels(transform.grid, settings.smooth_step)
    adam, convergence = (
        Adam(settings.floor),
        Convergence(settings.patience, settings.tolerance),
    )
    best, least = transform, math.inf
    name = f"{np.round(min(transform.grid.spacing), 2):g} mm"
    for iteration in range(iterations):
        warped, weight = level.carried(transform.displacement)
        energy, force = pull(similarity, warped, level.fixed.image, weight, scale)
        if energy < least:
            # Steps make new tensors and leave the old ones as they are.
            best, least = copy(transform), energy
        if progress is not None:
            progress(name, iteration, iterations, energy)
        transform.take(adam(kernels.gaussian(force, widths), settings.step, scale))
        if convergence.done(energy):
            break
    return best
