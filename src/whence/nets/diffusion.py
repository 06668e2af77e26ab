"""The denoising U-Net, as MONAI keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from whence.nets.blocks import in_blocks, out_of_blocks
from whence.nets.convolution import for_one_volume


class DenoisingUNet(nn.Module):
    """Images (B, inputs, *spatial), steps (B,) -> (B, outputs, *spatial); sizes divisible by ``multiple``.

    ``features`` from the finest level down, multiples of 8; the ``attention`` deepest levels have self-attention. With
    ``patch`` above 1 the finest level sees blocks of so many voxels a side as channels: a fraction of the time for
    images whose detail is coarser than a voxel.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        features: Sequence[int],
        blocks: int = 1,
        attention: int = 1,
        patch: int = 1,
    ) -> None:
        from monai.networks.nets import DiffusionModelUNet

        super().__init__()
        levels = len(features)
        self.patch = patch
        self.multiple = patch * 2 ** (levels - 1)
        net = DiffusionModelUNet(
            spatial_dims=dims,
            in_channels=inputs * patch**dims,
            out_channels=outputs * patch**dims,
            channels=tuple(features),
            num_res_blocks=blocks,
            attention_levels=tuple(level >= levels - attention for level in range(levels)),
            num_head_channels=8,
            norm_num_groups=8,
        )
        self.net = for_one_volume(net)

    def forward(self, images: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return out_of_blocks(self.net(in_blocks(images, self.patch), steps), self.patch)


class ConditionedUNet(nn.Module):
    """Latents (B, channels, *spatial), steps (B,) and tokens (B, K, width) -> (B, channels, *spatial).

    ``features`` from the finest level down, multiples of 8; the ``attention`` deepest levels attend to the tokens.
    """

    def __init__(
        self, dims: int, channels: int, features: Sequence[int], blocks: int, attention: int, width: int
    ) -> None:
        from monai.networks.nets import DiffusionModelUNet

        super().__init__()
        levels = len(features)
        self.multiple = 2 ** (levels - 1)
        net = DiffusionModelUNet(
            spatial_dims=dims,
            in_channels=channels,
            out_channels=channels,
            channels=tuple(features),
            num_res_blocks=blocks,
            attention_levels=tuple(level >= levels - attention for level in range(levels)),
            num_head_channels=8,
            norm_num_groups=8,
            with_conditioning=True,
            cross_attention_dim=width,
        )
        self.net = for_one_volume(net)

    def forward(self, latents: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.net(latents, steps, context=tokens)
