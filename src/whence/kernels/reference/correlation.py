"""Squared local normalised cross-correlation."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def local_correlation(
    a: torch.Tensor,
    b: torch.Tensor,
    window: int = 9,
    epsilon: float = 3e-3,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared correlation coefficient of two images (B, C, *spatial) in a cubic window, per voxel, 0..1.

    Windows are cut at the image's border. ``epsilon`` regularises by the variance (squared units of
    intensity) below which a window counts as flat, so that noise over background weighs nothing. ``mask``
    (B, 1, *spatial) weights the samples of a window; one without any has correlation 0.
    """
    if window % 2 == 0 or window < 3:
        raise ValueError(f"a window is odd and at least 3 voxels; got {window}")

    def mean(values: torch.Tensor) -> torch.Tensor:
        if mask is None:
            return _mean(values, window)
        share = _mean(mask.to(a.dtype), window)
        return _mean(values * mask, window) / torch.where(share > 0, share, 1)

    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    variance_a = (mean(a * a) - mean_a**2).clamp_min(0)
    variance_b = (mean(b * b) - mean_b**2).clamp_min(0)
    return covariance**2 / (variance_a * variance_b + epsilon**2)


def _mean(image: torch.Tensor, window: int) -> torch.Tensor:
    """Mean over a window as separable running means."""
    for axis in range(2, image.ndim):
        size = image.shape[axis]
        if window > size:
            # Pooling refuses a window that is longer than the axis.
            here = torch.arange(size, device=image.device)
            near = ((here[:, None] - here).abs() <= window // 2).to(image.dtype)
            image = (image.movedim(axis, -1) @ (near / near.sum(dim=0))).movedim(-1, axis)
            continue
        kernel = [1] * (image.ndim - 2)
        kernel[axis - 2] = window
        padding = [k // 2 for k in kernel]
        pool = F.avg_pool2d if image.ndim == 4 else F.avg_pool3d
        image = pool(image, kernel, stride=1, padding=padding, count_include_pad=False)
    return image
