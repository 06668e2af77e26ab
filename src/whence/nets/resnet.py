"""The translator of CycleGAN and pix2pix: strided in, residual blocks, strided out (Johnson et al. 2016)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from whence.nets.pyramid import CONV, LINEAR

NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class ResidualBlock(nn.Module):
    """Two convolutions of 3 with instance normalisation around a shortcut."""

    def __init__(self, dims: int, features: int) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.body = nn.Sequential(
            conv(features, features, 3, padding=1, padding_mode="replicate"),
            norm(features),
            nn.ReLU(inplace=True),
            conv(features, features, 3, padding=1, padding_mode="replicate"),
            norm(features),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.body(features)


class ResNetGenerator(nn.Module):
    """Image (B, inputs, *spatial) -> image (B, outputs, *spatial) in [-1, 1]; sizes divisible by 4.

    A convolution of 7 with ``filters`` outputs, two of stride 2 that double them, ``blocks`` residual
    blocks, two upsamplings that halve them, a convolution of 7, tanh. Upsampling is linear interpolation
    and a convolution; a transposed one leaves a chequered pattern.
    """

    multiple = 4

    def __init__(self, dims: int, inputs: int, outputs: int, filters: int = 64, blocks: int = 9) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.mode = LINEAR[dims]

        def layer(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
            padding = {"padding": size // 2, "padding_mode": "replicate"}
            return nn.Sequential(
                conv(before, after, size, stride=stride, **padding), norm(after), nn.ReLU(inplace=True)
            )

        self.enter = nn.Sequential(
            layer(inputs, filters, 7), layer(filters, 2 * filters, 3, 2), layer(2 * filters, 4 * filters, 3, 2)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(dims, 4 * filters) for _ in range(blocks)))
        self.up = nn.ModuleList([layer(4 * filters, 2 * filters, 3), layer(2 * filters, filters, 3)])
        self.leave = conv(filters, outputs, 7, padding=3, padding_mode="replicate")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.blocks(self.enter(image))
        for layer in self.up:
            features = layer(F.interpolate(features, scale_factor=2, mode=self.mode, align_corners=False))
        return torch.tanh(self.leave(features))
