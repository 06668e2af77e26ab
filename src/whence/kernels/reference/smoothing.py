"""Smoothing by a separable Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def gaussian(image: torch.Tensor, sigma: float | Sequence[float]) -> torch.Tensor:
    """Image (B, C, *spatial) smoothed by a separable Gaussian of ``sigma`` voxels (one for all axes, or
    one each; 0 for none), borders repeated.
    """
    sigmas = [sigma] * (image.ndim - 2) if isinstance(sigma, int | float) else list(sigma)
    for axis, width in enumerate(sigmas, start=2):
        if width > 0:
            image = _along(image, axis, width)
    return image


def _along(image: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    moved = image.movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    padded = F.pad(flat, (radius, radius), mode="replicate")
    return F.conv1d(padded, kernel[None, None]).reshape(moved.shape).movedim(-1, axis)
