"""Smoothing by a separable Gaussian."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Image (B, C, *spatial) smoothed by a separable Gaussian of ``sigma`` voxels, borders repeated."""
    if sigma <= 0:
        return image
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, image.ndim):
        moved = image.movedim(axis, -1)
        flat = moved.reshape(-1, 1, moved.shape[-1])
        padded = F.pad(flat, (radius, radius), mode="replicate")
        smooth = F.conv1d(padded, kernel[None, None])
        image = smooth.reshape(moved.shape).movedim(-1, axis)
    return image
