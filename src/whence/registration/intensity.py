"""Intensities as similarities expect them."""

from __future__ import annotations

from whence.metrics.body import robust_range
from whence.space import Volume


def scaled(volume: Volume) -> Volume:
    """First image's first channel between its robust quantiles, in [-1, 1]."""
    tensor = volume.tensor[:1, :1]
    low, high = robust_range(tensor)
    return volume.with_tensor(((tensor - low) / (high - low) * 2 - 1).clamp(-1, 1))
