"""A network that reads maps off an image, noisy or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from whence.nets.pyramid import CONV, Decoder, Encoder


class Reader(nn.Module):
    """Images (B, inputs, *spatial) -> maps (B, outputs, *spatial) in 0..1; sizes divisible by ``multiple``."""

    def __init__(self, dims: int, inputs: int, outputs: int, features: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(dims, inputs, features)
        self.decoder = Decoder(dims, features)
        self.head = CONV[dims](features[0], outputs, 1)
        self.multiple = self.encoder.multiple

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(images))).sigmoid()
