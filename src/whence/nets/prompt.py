"""What a denoiser is prompted with: a mask and an image, each a vector that it attends to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from whence.errors import InputError
from whence.nets.pyramid import ConvBlock

# SAM's colours: means and deviations of its images' channels, of 0..1.
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VectorEncoder(nn.Module):
    """Maps (B, inputs, H, W) -> vectors (B, width): blocks of half the size each, what is left joined place by place.

    Places are kept: where a tumour lies is what it has to say.
    """

    def __init__(self, inputs: int, features: Sequence[int], width: int, side: int = 4) -> None:
        super().__init__()
        sizes = [inputs, *features]
        self.side = side
        self.blocks = nn.Sequential(*(ConvBlock(2, a, b, 2) for a, b in pairwise(sizes)))
        self.head = nn.Linear(features[-1] * side**2, width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.blocks(maps), self.side).flatten(1))


class SamEncoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> vectors (B, width), by the image encoder of a (Med)SAM folder, which is frozen.

    It sees them upright, as they are shown: the second axis up, the first to the left. ``scale`` is medsam, each
    image's own range as 0 to 1, as MedSAM was trained, or sam, in deviations from the means of photographs.
    Its 64 x 64 places are joined four by four to a side, and projected by a layer that is trained. ``described``, what
    an encoder's ``config`` said of it, makes one of fresh weights without the folder. Raises InputError where the
    folder holds none, or transformers is not installed.
    """

    def __init__(
        self, name: str, width: int, scale: str = "medsam", side: int = 4, described: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.scale = _sam(name, described).requires_grad_(False).eval(), scale
        self.side, self.size = side, int(self.encoder.config.image_size)
        self.head = nn.Linear(int(self.encoder.config.output_channels) * side**2, width)

    def train(self, mode: bool = True) -> SamEncoder:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = (images.mean(dim=1, keepdim=True) + 1) / 2
        upright = grey.flip(2, 3).transpose(2, 3)
        large = F.interpolate(upright, size=(self.size, self.size), mode="bicubic", align_corners=False)
        if self.scale == "medsam":
            least, most = (edge(upright, dim=(2, 3), keepdim=True) for edge in (torch.amin, torch.amax))
            shown = ((large - least) / (most - least).clamp_min(1e-8)).clamp(0, 1).expand(-1, 3, -1, -1)
        else:
            means, deviations = (large.new_tensor(part).reshape(1, 3, 1, 1) for part in (_MEANS, _DEVIATIONS))
            shown = (large - means) / deviations
        with torch.no_grad():
            seen = self.encoder(shown)[0]
        return self.head(F.adaptive_avg_pool2d(seen, self.side).flatten(1))


def _sam(name: str, described: dict[str, Any] | None) -> Any:
    try:
        from transformers import SamModel, SamVisionConfig, SamVisionModel
    except ImportError as error:
        raise InputError("SAM's encoder needs transformers: python -m pip install 'whence[retrieval]'") from error
    if described is not None:
        return SamVisionModel(SamVisionConfig(**described)).vision_encoder
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise InputError(f"{name} holds no config.json; expected a folder of SAM's layout")
    try:
        return SamModel.from_pretrained(name).vision_encoder
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"SAM's encoder in {name} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
