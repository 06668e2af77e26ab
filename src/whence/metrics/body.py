"""Where the body is, and the range of intensities it spans."""

from __future__ import annotations

import torch


def robust_range(image: torch.Tensor, low: float = 0.005, high: float = 0.995) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantiles of each channel of each image (B, C, *spatial), as two tensors (B, C, 1, ..., 1); never equal."""
    flat = image.detach().flatten(2).float()
    # Sorted positions: torch.quantile refuses more than 2^24 elements.
    ordered = flat.sort(dim=2).values
    last = flat.shape[2] - 1
    shape = (*image.shape[:2], *[1] * (image.ndim - 2))
    bottom = ordered[..., round(low * last)].reshape(shape)
    top = ordered[..., round(high * last)].reshape(shape)
    return bottom, torch.maximum(top, bottom + 1e-6 * bottom.abs().clamp_min(1e-6))


def body_mask(image: torch.Tensor, threshold: float = 0.08) -> torch.Tensor:
    """Foreground (B, 1, *spatial) bool: above a share of the robust range, holes filled, largest part kept."""
    import numpy as np
    from scipy import ndimage

    low, high = robust_range(image)
    above = ((image - low) > threshold * (high - low)).any(dim=1).cpu().numpy()
    masks = []
    for part in above:
        # A single slice would not outlast an opening across it.
        shape, part = part.shape, part.squeeze()
        part = ndimage.binary_opening(part, iterations=1)
        labels, count = ndimage.label(part)
        if count > 1:
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            part = labels == sizes.argmax()
        masks.append(ndimage.binary_fill_holes(part).reshape(shape))
    return torch.from_numpy(np.stack(masks)[:, None]).to(image.device)
