"""The KL autoencoder of images in the plane and in space, as MONAI keeps it, and a decoder of fields beside it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from whence.nets.convolution import for_one_volume
from whence.nets.pyramid import CONV


class KLAutoencoder(nn.Module):
    """Images (B, channels, *spatial) -> means and deviations of latents (B, latent, *lower), and back.

    ``features`` from the image's resolution down, each level half the one before; ``multiple`` divides the images.
    """

    def __init__(self, dims: int, channels: int, features: Sequence[int], latent: int, blocks: int = 1) -> None:
        from monai.networks.nets import AutoencoderKL

        super().__init__()
        self.dims, self.features = dims, tuple(features)
        self.multiple = 2 ** (len(features) - 1)
        net = AutoencoderKL(
            spatial_dims=dims,
            in_channels=channels,
            out_channels=channels,
            num_res_blocks=blocks,
            channels=tuple(features),
            attention_levels=(False,) * len(features),
            latent_channels=latent,
            norm_num_groups=8,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.net = for_one_volume(net)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and deviations of the latents' distributions."""
        return self.net.encode(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of latents."""
        return self.net.decode(latents)

    def field_decoder(self) -> nn.Module:
        """A copy of the decoder as it is, whose last convolution answers with D channels, almost 0 at first.

        Without the last normalisation: of features whose deviation is 1 whatever the latents say, a field of an old
        brain could not be many times that of a young one.
        """
        net = nn.Sequential(deepcopy(self.net.post_quant_conv), deepcopy(self.net.decoder))
        last = CONV[self.dims](self.features[0], self.dims, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        net[1].blocks[-2], net[1].blocks[-1] = nn.Identity(), last
        return for_one_volume(net)
