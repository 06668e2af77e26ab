"""PatchGAN, as MONAI keeps it."""

from __future__ import annotations

from torch import nn


def patch_discriminator(
    dims: int, channels: int, filters: int = 64, layers: int = 3, norm: str | None = "INSTANCE"
) -> nn.Module:
    """70x70-patch discriminator (Isola et al. 2017 for 3 layers) of images (B, channels, *spatial).

    Without a norm it can also judge how much there is of a thing, which instance normalisation takes away.

    Returns MONAI's module: a list of feature maps, the last of which holds the scores.
    """
    from monai.networks.nets import PatchDiscriminator

    return PatchDiscriminator(
        spatial_dims=dims,
        channels=filters,
        in_channels=channels,
        out_channels=1,
        num_layers_d=layers,
        norm=norm,
    )
