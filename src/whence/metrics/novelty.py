"""Novelty: where a prediction shows what its warped source does not explain."""

from __future__ import annotations

import torch

from whence import kernels
from whence.metrics.body import robust_range


def unexplained(
    prediction: torch.Tensor,
    warped: torch.Tensor,
    bins: int = 32,
    smoothing: float = 1.0,
    scale: float = 0.1,
) -> torch.Tensor:
    """Novelty map (B, 1, *spatial) in 0..1 of a prediction, given its warped source, both (B, C, *spatial).

    A change of contrast alone is no novelty: the prediction is compared with its conditional mean given
    the warped source's intensity, E[prediction | warped], taken from the joint histogram of the whole
    image. The remaining difference r, smoothed by a Gaussian of ``smoothing`` voxels, becomes
    ``r^2 / (r^2 + s^2)`` with s = ``scale`` times the prediction's robust range: 0.5 means that a tenth
    of the range is unexplained. Where the two have other numbers of channels, each of the prediction's
    is compared with the one of the source that explains it best. Ours; the papers name no such measure.
    """
    if prediction.shape[2:] != warped.shape[2:] or prediction.shape[0] != warped.shape[0]:
        raise ValueError(f"prediction {tuple(prediction.shape)} and warped source {tuple(warped.shape)} differ")
    residuals = []
    for channel in range(prediction.shape[1]):
        mine = prediction[:, channel, None]
        candidates = [channel] if prediction.shape[1] == warped.shape[1] else range(warped.shape[1])
        found = [(mine - _expected(mine, warped[:, k, None], bins)) / _spread(mine) for k in candidates]
        residuals.append(min(found, key=lambda residual: float(residual.square().mean())))
    residual = torch.cat(residuals, dim=1)
    residual = kernels.gaussian(residual, smoothing).abs().amax(dim=1, keepdim=True)
    return residual**2 / (residual**2 + scale**2)


def _expected(prediction: torch.Tensor, warped: torch.Tensor, bins: int) -> torch.Tensor:
    """E[prediction | warped] at every voxel, from the joint histogram."""
    low, high = robust_range(prediction)
    from_low, from_high = robust_range(warped)
    mine = ((prediction - low) / (high - low)).clamp(0, 1)
    theirs = ((warped - from_low) / (from_high - from_low)).clamp(0, 1)
    histogram = kernels.joint_histogram(theirs, mine, bins)
    centres = (torch.arange(bins, device=mine.device, dtype=mine.dtype) - 1) / (bins - 3)
    mean = (histogram * centres).sum(dim=2) / histogram.sum(dim=2).clamp_min(1e-12)
    position = theirs * (bins - 3) + 1
    first = position.floor().clamp(0, bins - 2)
    share = position - first
    index = first.long().reshape(first.shape[0], -1)
    below = mean.gather(1, index).reshape(first.shape)
    above = mean.gather(1, index + 1).reshape(first.shape)
    return (below * (1 - share) + above * share) * (high - low) + low


def _spread(image: torch.Tensor) -> torch.Tensor:
    low, high = robust_range(image)
    return high - low
