"""Smooth random fields."""

from __future__ import annotations

import numpy as np
from scipy import fft


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], width: float, channels: int = 1) -> np.ndarray:
    """Gaussian random fields (channels, *shape), float32, mean 0 and standard deviation 1 a channel.

    White noise under a Gaussian of ``width`` voxels, periodic at the borders.
    """
    axes = tuple(range(1, len(shape) + 1))
    white = rng.standard_normal((channels, *shape), dtype=np.float32)
    spectrum = fft.rfftn(white, axes=axes)
    spectrum *= np.exp(-0.5 * width**2 * squared_frequency(shape)).astype(np.float32)
    field = fft.irfftn(spectrum, s=shape, axes=axes)
    field -= field.mean(axis=axes, keepdims=True)
    return field / np.maximum(field.std(axis=axes, keepdims=True), 1e-12)


def frequencies(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Angular frequency along each axis (radians a voxel) for ``rfftn``, each broadcastable to all."""
    ends = [2 * np.pi * (fft.rfftfreq(n) if d == len(shape) - 1 else fft.fftfreq(n)) for d, n in enumerate(shape)]
    return [e.reshape([-1 if a == d else 1 for a in range(len(shape))]) for d, e in enumerate(ends)]


def squared_frequency(shape: tuple[int, ...]) -> np.ndarray:
    """|k|^2 of every coefficient of ``rfftn``, radians a voxel."""
    return sum(k**2 for k in frequencies(shape))
