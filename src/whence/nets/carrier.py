"""A network that carries a scan to its outcome: what was there moves, what was not is added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from whence.nets.pyramid import CONV, Decoder, Encoder, VelocityHead


class Carrier(nn.Module):
    """Scan (B, C, *spatial) and maps beside it (B, K, *spatial) -> a velocity and a change of the scan.

    Velocity (B, D, *spatial) in voxels, change (B, C, *spatial).
    The outcome is scan o exp(velocity) + change; it starts as the scan. Spatial sizes divisible by ``multiple``.
    """

    def __init__(self, dims: int, channels: int, beside: int, features: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(dims, channels + beside, features)
        self.decoder = Decoder(dims, features)
        self.velocity = VelocityHead(dims, features[1], scale=2)
        self.change = CONV[dims](features[0], channels, 3, padding=1)
        nn.init.normal_(self.change.weight, std=1e-3)
        nn.init.zeros_(self.change.bias)
        self.multiple = self.encoder.multiple

    def forward(self, scan: torch.Tensor, beside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        half, full = self.decoder.levels(self.encoder(torch.cat([scan, beside], dim=1)))[-2:]
        return self.velocity(half, scan.shape[2:]), self.change(full)
