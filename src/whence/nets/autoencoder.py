"""The KL autoencoder of images in the plane and in space, as MONAI keeps it, and a decoder of fields beside it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from whence.nets.blocks import in_blocks, out_of_blocks
from whence.nets.convolution import for_one_volume
from whence.nets.pyramid import CONV


class KLAutoencoder(nn.Module):
    """Images (B, channels, *spatial) -> means and deviations of latents (B, latent, *lower), and back.

    ``features`` from the image's resolution down, each level half the one before; ``multiple`` divides the images. With
    ``patch`` above 1 the finest level sees blocks of so many voxels a side as channels: a fraction of the time.
    """

    def __init__(
        self, dims: int, channels: int, features: Sequence[int], latent: int, blocks: int = 1, patch: int = 1
    ) -> None:
        from monai.networks.nets import AutoencoderKL

        super().__init__()
        self.dims, self.features, self.patch = dims, tuple(features), patch
        self.multiple = patch * 2 ** (len(features) - 1)
        net = AutoencoderKL(
            spatial_dims=dims,
            in_channels=channels * patch**dims,
            out_channels=channels * patch**dims,
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
        return self.net.encode(in_blocks(images, self.patch))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of latents."""
        return out_of_blocks(self.net.decode(latents), self.patch)


class FieldDecoder(nn.Module):
    """The decoder of an autoencoder, whose last convolution answers with a field (B, D, *spatial), almost 0 at first.

    Without the last normalisation: of features whose deviation is 1 whatever the latents say, a field of an old
    brain could not be many times that of a young one. With ``told`` above 0 it is told a vector (B, told) as well, of
    which each level takes scales and shifts of its features: what moves, and how far, may then follow from it alone.
    """

    def __init__(self, vae: KLAutoencoder, told: int = 0) -> None:
        from monai.networks.nets.autoencoderkl import AEKLResBlock

        super().__init__()
        self.dims, self.patch = vae.dims, vae.patch
        self.first = deepcopy(vae.net.post_quant_conv)
        self.blocks = deepcopy(vae.net.decoder.blocks)
        last = CONV[vae.dims](vae.features[0], vae.dims * vae.patch**vae.dims, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        self.blocks[-2], self.blocks[-1] = nn.Identity(), last
        self.read = nn.Sequential(nn.SiLU(), nn.Linear(told, told), nn.SiLU()) if told else None
        # By the place of the block whose features they scale and shift.
        self.told = nn.ModuleDict(
            {
                str(n): nn.Linear(told, 2 * b.out_channels)
                for n, b in enumerate(self.blocks)
                if isinstance(b, AEKLResBlock)
            }
            if told
            else {}
        )
        for part in self.told.parameters():
            nn.init.zeros_(part)
        for_one_volume(self)

    def forward(self, latents: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
        features = self.first(latents)
        read = None if self.read is None or told is None else self.read(told)
        for place, block in enumerate(self.blocks):
            features = block(features)
            if read is not None and str(place) in self.told:
                scale, shift = self.told[str(place)](read).reshape(len(read), 2, -1, *[1] * self.dims).unbind(dim=1)
                features = features * (1 + scale) + shift
        return out_of_blocks(features, self.patch)

    def begin_as(self, vae: KLAutoencoder) -> None:
        """Take the weights of the image's decoder, all but the last layer's."""
        self.first.load_state_dict(vae.net.post_quant_conv.state_dict())
        for own, known in zip(self.blocks[:-2], vae.net.decoder.blocks[:-2], strict=True):
            own.load_state_dict(known.state_dict())
