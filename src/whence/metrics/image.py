"""Quality of a predicted image beside the true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from whence.losses import normalised_mutual_information

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, five scales


def image_quality(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """SSIM, MS-SSIM, PSNR, NMI and MAE inside the body, of two images (1, C, *spatial) in [0, 1].

    SSIM, PSNR, NMI and MAE are taken over ``mask`` (1, 1, *spatial) bool, so that empty background
    raises nobody's figure; MS-SSIM, which needs whole windows, over the mask's bounding box, with as
    many of its five scales as fit there. SSIM and MS-SSIM are MONAI's: Gaussian window of 11 voxels,
    less where images are thinner.
    """
    from monai.metrics import MultiScaleSSIMMetric
    from monai.metrics.regression import KernelType, compute_ssim_and_cs

    # A volume of one slice is judged as the slice it is.
    kept = [0, 1, *[axis for axis in range(2, prediction.ndim) if prediction.shape[axis] > 1]]
    shape = [prediction.shape[axis] for axis in kept]
    prediction, target, mask = prediction.reshape(shape), target.reshape(shape), mask.reshape(1, 1, *shape[2:])
    dims = prediction.ndim - 2
    inside = mask.expand_as(prediction)
    if not bool(inside.any()):
        raise ValueError("the body mask is empty")
    window = _window(prediction.shape[2:])
    ssim_map, _ = compute_ssim_and_cs(
        prediction,
        target,
        spatial_dims=dims,
        data_range=1.0,
        kernel_type=KernelType.GAUSSIAN,
        kernel_size=(window,) * dims,
        kernel_sigma=(1.5,) * dims,
    )
    # The map covers window centres whose window fits; the mask is cut alike.
    margin = [(a - b) // 2 for a, b in zip(prediction.shape[2:], ssim_map.shape[2:], strict=True)]
    index = (..., *[slice(m, m + n) for m, n in zip(margin, ssim_map.shape[2:], strict=True)])
    centres = inside[index]
    difference = (prediction - target)[inside]
    squared = float(difference.square().mean())
    found = {
        "ssim": float(ssim_map[centres].mean()) if bool(centres.any()) else float(ssim_map.mean()),
        "psnr": -10 * torch.log10(torch.tensor(max(squared, 1e-12))).item(),
        "nmi": float(normalised_mutual_information(prediction * 2 - 1, target * 2 - 1, mask).mean()),
        "mae": float(difference.abs().mean()),
    }
    box = _bounding_box(mask)
    prediction, target = prediction[box], target[box]
    window = _window(prediction.shape[2:])
    scales = _scales(min(prediction.shape[2:]), window)
    if scales > 1:
        weights = [w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales]]
        metric = MultiScaleSSIMMetric(dims, data_range=1.0, kernel_size=window, weights=weights)
        found["ms_ssim"] = float(metric(prediction, target).mean())
    return found


def _window(shape: Sequence[int]) -> int:
    """Side of SSIM's window: 11 voxels, or the largest odd number that fits."""
    thinnest = min(shape)
    return min(11, thinnest if thinnest % 2 else thinnest - 1)


def _scales(thinnest: int, window: int) -> int:
    """How many of MS-SSIM's scales the window fits into; MONAI asks for more room than halving takes."""
    fits = [
        thinnest // 2 ** (n - 1) > window and thinnest // max(1, n - 1) ** 2 >= window
        for n in range(1, len(WEIGHTS) + 1)
    ]
    return sum(fits)


def _bounding_box(mask: torch.Tensor) -> tuple[Any, ...]:
    """Index of the smallest box of a tensor (1, C, *spatial) that holds a mask (1, 1, *spatial)."""
    found = mask[0, 0].nonzero()
    low, high = found.min(dim=0).values.tolist(), (found.max(dim=0).values + 1).tolist()
    return (..., *[slice(a, b) for a, b in zip(low, high, strict=True)])
