"""Joint histogram with a cubic B-spline Parzen window (Mattes et al. 2003)."""

from __future__ import annotations

import torch


def joint_histogram(a: torch.Tensor, b: torch.Tensor, bins: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Joint probabilities (B, bins, bins) of two images (B, C, *spatial), differentiable in both.

    Intensities are expected in [0, 1] (and clamped to it): 0 and 1 fall on the centres of the second
    and the second-last bin, so that every window of four bins lies inside the histogram. Each sample
    touches 4 x 4 bins, memory grows with the samples and not with samples x bins. ``mask``
    (B, 1, *spatial) weights the samples; one of no weight may be anything, NaN included.
    """
    batch, channels = a.shape[:2]
    if mask is not None:
        a, b = (image.masked_fill(mask == 0, 0) for image in (a, b))
    bins_a, weights_a = _window(a, bins)
    bins_b, weights_b = _window(b, bins)
    count = bins_a.shape[1]
    if mask is not None:
        weight = mask.to(a.dtype).expand(batch, channels, *a.shape[2:]).reshape(batch, count)
    else:
        weight = a.new_ones((batch, count))
    histogram = a.new_zeros((batch, bins * bins))
    for i in range(4):
        row = (bins_a + i) * bins
        part = weights_a[i] * weight
        for j in range(4):
            histogram = histogram.scatter_add(1, row + bins_b + j, part * weights_b[j])
    total = weight.sum(dim=1).clamp_min(torch.finfo(a.dtype).tiny)
    return (histogram / total[:, None]).reshape(batch, bins, bins)


def _window(image: torch.Tensor, bins: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """First bin (B, N) of each sample's window of four, and the four B-spline weights."""
    if bins < 5:
        raise ValueError(f"a cubic Parzen window needs at least 5 bins; got {bins}")
    position = image.reshape(image.shape[0], -1).clamp(0, 1) * (bins - 3) + 1
    # A NaN falls into the first window and shows there.
    first = position.detach().nan_to_num(nan=1).floor().clamp(1, bins - 3)
    t = position - first
    weights = [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]
    return first.long() - 1, weights
