"""The registration U-Net of VoxelMorph (Balakrishnan et al. 2019): plain convolutions, no normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from whence.nets.blocks import in_blocks
from whence.nets.pyramid import CONV, LINEAR


class RegistrationUNet(nn.Module):
    """Images (B, inputs, *spatial) -> features (B, up[-1], *spatial).

    ``down`` are the features from full resolution, each level half the one before; ``up`` those on the way
    back, as many as there are halvings and then at full resolution. With ``patch`` above 1 the network sees blocks of
    so many voxels a side as channels, and its features are at 1/``patch`` of the images' resolution: a fraction of the
    time for fields that are smooth over a few voxels.
    """

    def __init__(self, dims: int, inputs: int, down: Sequence[int], up: Sequence[int], patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        inputs *= patch**dims
        halvings = len(down) - 1
        if halvings < 1 or len(up) <= halvings:
            raise ValueError(f"expected at least two levels down and one more up; got {list(down)} and {list(up)}")
        self.mode = LINEAR[dims]
        self.multiple = patch * 2**halvings

        def layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                CONV[dims](before, after, 3, stride=stride, padding=1), nn.LeakyReLU(0.2, inplace=True)
            )

        befores = [inputs, *down[:-1]]
        self.down = nn.ModuleList(
            layer(a, b, 1 if n == 0 else 2) for n, (a, b) in enumerate(zip(befores, down, strict=True))
        )
        current, ups = down[-1], []
        for n in range(halvings):
            ups.append(layer(current, up[n]))
            current = up[n] + down[halvings - 1 - n]
        self.up = nn.ModuleList(ups)
        rest = []
        for features in up[halvings:]:
            rest.append(layer(current, features))
            current = features
        self.rest = nn.Sequential(*rest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images, skips = in_blocks(images, self.patch), []
        for layer in self.down:
            images = layer(images)
            skips.append(images)
        current = skips.pop()
        for layer in self.up:
            skip = skips.pop()
            current = F.interpolate(layer(current), size=skip.shape[2:], mode=self.mode, align_corners=False)
            current = torch.cat([current, skip], dim=1)
        return self.rest(current)
