"""Agreement of edges."""

from __future__ import annotations

import torch


def edge_agreement(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> float:
    """Correlation of the Sobel gradient magnitudes of two images (1, C, *spatial) over a mask, -1 to 1."""
    inside = mask.expand(-1, a.shape[1], *[-1] * (a.ndim - 2))
    edges = torch.stack([sobel_magnitude(a)[inside], sobel_magnitude(b)[inside]]).double()
    edges = edges - edges.mean(dim=1, keepdim=True)
    norms = edges.square().sum(dim=1).sqrt()
    return float((edges[0] * edges[1]).sum() / (norms[0] * norms[1]).clamp_min(1e-12))


def sobel_magnitude(image: torch.Tensor) -> torch.Tensor:
    """Length of the Sobel gradient of an image (B, C, *spatial), borders repeated."""
    squared = torch.zeros_like(image)
    for axis in range(2, image.ndim):
        slope = _along(image, axis, (-0.5, 0.0, 0.5))
        for other in range(2, image.ndim):
            if other != axis:
                slope = _along(slope, other, (0.25, 0.5, 0.25))
        squared = squared + slope.square()
    return squared.sqrt()


def _along(image: torch.Tensor, axis: int, weights: tuple[float, float, float]) -> torch.Tensor:
    count = image.shape[axis]
    before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, count - 1)], dim=axis)
    after = torch.cat(
        [image.narrow(axis, min(1, count - 1), max(count - 1, 1)), image.narrow(axis, count - 1, 1)], dim=axis
    )
    after = after.narrow(axis, 0, count)
    return weights[0] * before + weights[1] * image + weights[2] * after
