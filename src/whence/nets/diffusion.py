"""The denoising U-Net, as MONAI keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def diffusion_unet(
    dims: int, inputs: int, outputs: int, features: Sequence[int], blocks: int = 1, attention: int = 1
) -> nn.Module:
    """U-Net: images (B, inputs, *spatial), steps (B,) -> (B, outputs, *spatial); sizes divisible by 2^(levels - 1).

    ``features`` from full resolution down, multiples of 8; the ``attention`` deepest levels have self-attention.
    """
    from monai.networks.nets import DiffusionModelUNet

    levels = len(features)
    return DiffusionModelUNet(
        spatial_dims=dims,
        in_channels=inputs,
        out_channels=outputs,
        channels=tuple(features),
        num_res_blocks=blocks,
        attention_levels=tuple(level >= levels - attention for level in range(levels)),
        num_head_channels=8,
        norm_num_groups=8,
    )
