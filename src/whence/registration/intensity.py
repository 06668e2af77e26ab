"""Intensities as similarities expect them."""

from __future__ import annotations

import torch

from whence.metrics.body import robust_range
from whence.space import Volume

# Voxels enough for a quantile.
ENOUGH = 1 << 19


def scaled(volume: Volume, mask: Volume | None = None) -> Volume:
    """First image's first channel between its robust quantiles, in [-1, 1]; a mask says where the upper one is taken.

    The lower one is that of the whole image, background as a rule, with or without a mask: two images of which
    one has a mask stay comparable.
    """
    tensor = volume.tensor[:1, :1].float()
    values = tensor.flatten()
    low, high = _range(values)
    if mask is not None and bool((mask.tensor[:1, :1] > 0.5).any()):
        high = max(_range(values[(mask.tensor[0, 0] > 0.5).flatten()])[1], low + 1e-6)
    return volume.with_tensor(((tensor - low) / (high - low) * 2 - 1).clamp(-1, 1))


def _range(values: torch.Tensor) -> tuple[float, float]:
    # An odd stride meets other places of every row.
    low, high = robust_range(values[None, None, :: max(1, len(values) // ENOUGH) | 1])
    return float(low), float(high)
