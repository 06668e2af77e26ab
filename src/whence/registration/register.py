"""Registration of two images, whatever their grids: affine, then diffeomorphic; one map and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from whence.field import Displacement, warp
from whence.losses import Similarity
from whence.registration.affine import register_affine
from whence.registration.alike import alike
from whence.registration.diffeomorphic import default_similarity, optimise
from whence.registration.intensity import scaled
from whence.registration.inverse import total, total_inverse
from whence.registration.pyramid import seen_through
from whence.registration.settings import Settings
from whence.space import Volume

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, eq=False)
class Registration:
    """What was found: moved(p) = moving(phi(p)) for p on the fixed grid.

    ``displacement`` is the total map, affine included, on the fixed grid, ``inverse`` its inverse on the moving
    grid, ``affine`` the affine alone (D+1, D+1), fixed point to moving point in RAS mm. ``energies`` has
    a row (stage, iteration, energy) for every step. ``similarity`` is the one that was chosen where none was given.
    """

    fixed: Volume
    moving: Volume
    affine: np.ndarray
    displacement: Displacement
    inverse: Displacement
    energies: tuple[tuple[str, int, float], ...] = ()
    similarity: str | None = None

    def warped(self) -> Volume:
        """The moving image on the fixed grid."""
        return warp(self.moving, self.displacement)


def register(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None = None,
    settings: Settings | None = None,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    affine_similarity: Similarity | None = None,
    start: np.ndarray | None = None,
    make: Callable[[str], Similarity] = default_similarity,
    progress: Progress | None = None,
) -> Registration:
    """Register ``moving`` to ``fixed``, two images of any grids in physical space.

    ``similarity`` serves the diffeomorphic stage; by default local correlation where the images, aligned by the
    affine, show things in one contrast, and mutual information elsewhere, as ``make`` makes them by name.
    ``affine_similarity`` (NMI by default) serves the affine one. ``start`` is an affine known already, fixed to
    moving point in RAS mm; it replaces the affine stage. Masks lie on the grids of their images and say where they
    are compared.
    Raises ValueError for images of different dimensions or a mask of another grid.
    """
    if fixed.dims != moving.dims:
        raise ValueError(f"images of one dimension are registered; got {fixed.dims}D and {moving.dims}D")
    for image, mask in ((fixed, fixed_mask), (moving, moving_mask)):
        if mask is not None and not mask.grid.same_as(image.grid):
            raise ValueError(f"a mask lies on the grid of its image, {image.grid}; got {mask.grid}")
    settings = settings or Settings()
    energies: list[tuple[str, int, float]] = []

    def note(stage: str, iteration: int, iterations: int, energy: float) -> None:
        energies.append((stage, iteration, energy))
        if progress is not None:
            progress(stage, iteration, iterations, energy)

    masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    matrix = np.eye(fixed.dims + 1) if start is None else np.asarray(start, dtype=np.float64)
    if start is None and settings.affine is not None:
        matrix = register_affine(fixed, moving, affine_similarity, settings.affine, **masks, progress=note)
    field = Displacement.identity(fixed.grid)
    chosen: str | None = None
    if settings.diffeomorphic is not None:
        images = scaled(fixed, fixed_mask), scaled(moving, moving_mask)
        if similarity is None:
            chosen = "ncc" if alike(*images, matrix, fixed_mask, moving_mask) else "mi"
            similarity = make(chosen)
        seen = seen_through(matrix, images[1])
        seen_mask = None if moving_mask is None else seen_through(matrix, moving_mask)
        found = optimise(images[0], seen, similarity, settings.diffeomorphic, (fixed_mask, seen_mask), note)
        field = found.resampled(fixed.grid)
    forward, backward = total(matrix, field), total_inverse(matrix, field, moving.grid)
    return Registration(fixed, moving, matrix, forward, backward, tuple(energies), chosen)
