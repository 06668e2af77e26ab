"""Landmarks that both dates show."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from whence.space import Grid


def draw_landmarks(
    rng: np.random.Generator,
    grid: Grid,
    labels: np.ndarray,
    lost: np.ndarray,
    count: int,
    near: float = 15.0,
) -> np.ndarray:
    """Points (count, D), RAS mm, spread over the target's brain; a third of them near what is lost.

    ``labels`` (*shape) is 0 outside the brain, ``lost`` the region that has no source. The points keep
    a voxel's distance from it; ``near`` is in mm.
    """
    spacing = float(grid.spacing[0])
    away = ndimage.distance_transform_edt(~lost) * spacing if lost.any() else np.full(lost.shape, np.inf)
    brain = ndimage.binary_erosion(labels > 0)
    allowed = brain & (away > 1.5 * spacing)
    close = _spread(rng, np.argwhere(allowed & (away <= near)), count // 3)
    far = _spread(rng, np.argwhere(allowed & (away > near)), count - len(close))
    voxels = np.concatenate([close, far]).astype(np.float64)
    voxels += rng.uniform(-0.4, 0.4, voxels.shape)
    return grid.to_world(voxels)


def _spread(rng: np.random.Generator, candidates: np.ndarray, count: int) -> np.ndarray:
    """Up to ``count`` of the candidates (N, D), each the one farthest from those before it."""
    if len(candidates) == 0:
        return candidates
    # A random few hundred make the choice differ from case to case, and quick.
    pool = candidates[rng.permutation(len(candidates))[:400]]
    chosen = [0]
    distance = np.full(len(pool), np.inf)
    while len(chosen) < min(count, len(pool)):
        distance = np.minimum(distance, ((pool - pool[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return pool[chosen]
