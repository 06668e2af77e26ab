"""Encoder and decoders that share a pyramid of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from whence.nets.blocks import out_of_blocks
from whence.nets.convolution import Conv3d

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class ConvBlock(nn.Sequential):
    """Convolution 3, group normalisation, leaky ReLU."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int = 1) -> None:
        # Eight channels a group: per-channel statistics would erase the intensity level that
        # tells tissue from fluid, and 3D batches are too small for batch statistics.
        groups = max(1, outputs // 8)
        super().__init__(
            CONV[dims](inputs, outputs, 3, stride=stride, padding=1),
            nn.GroupNorm(groups, outputs),
            nn.LeakyReLU(0.2, inplace=True),
        )


class Encoder(nn.Module):
    """Image (B, C, *spatial) -> features from full resolution down, each level half the one before."""

    def __init__(self, dims: int, channels: int, features: Sequence[int]) -> None:
        super().__init__()
        levels = []
        inputs = channels
        for level, outputs in enumerate(features):
            levels.append(
                nn.Sequential(
                    ConvBlock(dims, inputs, outputs, stride=1 if level == 0 else 2),
                    ConvBlock(dims, outputs, outputs),
                )
            )
            inputs = outputs
        self.levels = nn.ModuleList(levels)
        self.multiple = 2 ** (len(features) - 1)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for level in self.levels:
            image = level(image)
            features.append(image)
        return features


class Decoder(nn.Module):
    """Pyramid of features -> features (B, features[stop], *spatial / 2^stop), with skip connections."""

    def __init__(self, dims: int, features: Sequence[int], stop: int = 0) -> None:
        super().__init__()
        self.mode = LINEAR[dims]
        self.stop = stop
        self.blocks = nn.ModuleList(
            ConvBlock(dims, features[level + 1] + features[level], features[level])
            for level in reversed(range(stop, len(features) - 1))
        )

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.levels(features)[-1]

    def levels(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Its answers at every level, the coarsest, which is the pyramid's own, first."""
        found = [features[-1]]
        levels = reversed(range(self.stop, len(features) - 1))
        for level, block in zip(levels, self.blocks, strict=True):
            skip = features[level]
            current = F.interpolate(found[-1], size=skip.shape[2:], mode=self.mode, align_corners=False)
            found.append(block(torch.cat([current, skip], dim=1)))
        return found


class VelocityHead(nn.Module):
    """Features at 1/scale of the image -> velocity (B, D, *spatial) in voxels of the image.

    Starts at (almost) zero, so that training starts from the identity. With ``patch`` above 1 each feature answers for
    a block of so many voxels a side, where ``scale`` interpolates.
    """

    def __init__(self, dims: int, inputs: int, scale: int = 1, patch: int = 1) -> None:
        super().__init__()
        self.mode = LINEAR[dims]
        self.scale, self.patch = scale, patch
        self.conv = CONV[dims](inputs, dims * patch**dims, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=1e-5)
        nn.init.zeros_(self.conv.bias)

    def forward(self, features: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        velocity = out_of_blocks(self.conv(features), self.patch)
        if self.scale > 1:
            velocity = F.interpolate(velocity, size=tuple(shape), mode=self.mode, align_corners=False)
        # Eight bits of bfloat16 would leave steps of half a voxel in a motion of a hundred.
        return velocity.float()
