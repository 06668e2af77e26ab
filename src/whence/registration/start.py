"""Where an affine registration starts: centres and extents first, a few turns where they are not enough."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from whence.space import Volume

TURNS = {2: (20, -20, 45, -45, 90, -90, 135, -135, 180), 3: (20, -20, 45, -45)}


def starts(fixed: Volume, moving: Volume, fixed_weight: torch.Tensor, moving_weight: torch.Tensor) -> list[np.ndarray]:
    """Affine matrices (D+1, D+1) worth a look, RAS mm, the likeliest first.

    The weights, one a voxel, are 0 for background; centres and mean extents follow from them. What both
    headers say already (the identity) and the centres of the grids are looked at as well.
    """
    dims = fixed.dims
    (centre, extent), (goal, reach) = _moments(fixed, fixed_weight), _moments(moving, moving_weight)
    size = float(np.clip(reach / extent, 0.5, 2.0)) if min(reach, extent) > 0 else 1.0
    found = [_about(np.eye(dims), centre, goal), np.eye(dims + 1)]
    if abs(np.log(size)) > 0.03:
        found.append(_about(np.eye(dims) * size, centre, goal))
    found.append(_about(np.eye(dims), fixed.grid.centre, moving.grid.centre))
    for plane in combinations(range(dims), 2):
        found += [_about(_turn(dims, plane, angle), centre, goal) for angle in TURNS[dims]]
    return found


def _moments(volume: Volume, weight: torch.Tensor) -> tuple[np.ndarray, float]:
    """Weighted mean position (RAS mm) and root-mean-square distance from it along an axis, mm."""
    weights = weight.double().numpy()
    total = weights.sum()
    if not total > 0:
        return volume.grid.centre, 0.0
    dims = volume.dims
    mean, spread = np.zeros(dims), np.zeros(dims)
    for axis, n in enumerate(volume.grid.shape):
        profile = weights.sum(axis=tuple(a for a in range(dims) if a != axis)) / total
        mean[axis] = profile @ np.arange(n)
        spread[axis] = profile @ (np.arange(n) - mean[axis]) ** 2
    return volume.grid.to_world(mean), float(np.sqrt((spread * volume.grid.spacing**2).mean()))


def _about(linear: np.ndarray, centre: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The affine that turns about ``centre`` and brings it to ``goal``."""
    matrix = np.eye(len(centre) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = goal - linear @ centre
    return matrix


def _turn(dims: int, plane: tuple[int, ...], degrees: float) -> np.ndarray:
    matrix, angle = np.eye(dims), np.deg2rad(degrees)
    a, b = plane
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix
