"""LPIPS, where the weights of its network are on the machine: nothing is fetched."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

WEIGHTS = "alexnet-owt-*.pth"


def perceptual_distance(prediction: torch.Tensor, target: torch.Tensor) -> float | None:
    """LPIPS (AlexNet) of images (1, C, H, W) in [-1, 1], grey ones shown in three channels; None without its weights
    or torchvision.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018.
    """
    if prediction.ndim != 4 or not any((Path(torch.hub.get_dir()) / "checkpoints").glob(WEIGHTS)):
        return None
    if find_spec("torchvision") is None:
        return None
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    pair = [image.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).clamp(-1, 1) for image in (prediction, target)]
    return float(learned_perceptual_image_patch_similarity(*pair, net_type="alex"))
