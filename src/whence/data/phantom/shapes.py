"""Irregular regions as level sets: negative inside, roughly mm from the boundary near it."""

from __future__ import annotations

import numpy as np

from whence.data.phantom.noise import smooth_noise


def irregular_region(
    rng: np.random.Generator,
    positions: np.ndarray,
    centre: np.ndarray,
    radius: float,
    spacing: float,
    roughness: float = 0.3,
    lobes: int = 1,
) -> np.ndarray:
    """Level set (*shape) in mm of one or two noisy ellipsoids around a centre.

    ``positions`` (D, *shape) and ``centre`` (D,) are in mm, ``radius`` is the mean semi-axis in mm and
    ``roughness`` the size of the boundary's excursions relative to it.
    """
    dims, shape = positions.shape[0], positions.shape[1:]
    total = None
    for lobe in range(lobes):
        own = radius if lobe == 0 else radius * rng.uniform(0.55, 0.8)
        direction = _directions(rng, dims)
        middle = centre if lobe == 0 else centre + direction[0] * (0.62 * radius + 0.62 * own)
        axes = np.exp(rng.normal(0, 0.16, dims))
        axes /= np.prod(axes) ** (1 / dims)
        away = np.tensordot(direction, positions - middle.reshape(-1, *[1] * dims), axes=1)
        distance = np.sqrt(((away / axes.reshape(-1, *[1] * dims)) ** 2).sum(axis=0))
        level = distance - own
        total = level if total is None else smooth_minimum(total, level, 0.25 * radius)
    coarse = smooth_noise(rng, shape, 0.42 * radius / spacing)[0]
    fine = smooth_noise(rng, shape, max(0.9, 0.17 * radius / spacing))[0]
    # Beyond the region the noise fades, so that no island appears far away.
    fade = np.exp(-((np.maximum(total, 0) / (0.9 * radius)) ** 2))
    return (total + roughness * radius * fade * (0.75 * coarse + 0.3 * fine)).astype(np.float32)


def smooth_minimum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Minimum with a rounded crease: the union of two level sets."""
    return 0.5 * (a + b - np.sqrt((a - b) ** 2 + width**2))


def smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Maximum with a rounded crease: the intersection of two level sets."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + width**2))


def inside(level: np.ndarray, width: float) -> np.ndarray:
    """Soft membership 0..1 of a level set, half at the boundary, falling over ``width`` mm."""
    return 1 / (1 + np.exp(np.clip(level / width, -30, 30)))


def _directions(rng: np.random.Generator, dims: int) -> np.ndarray:
    """Random orthonormal rows (D, D)."""
    basis, _ = np.linalg.qr(rng.standard_normal((dims, dims)))
    return basis.T
