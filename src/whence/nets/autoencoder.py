"""The KL autoencoder of images in the plane and in space, as MONAI keeps it, and a decoder of fields beside it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from whence.nets.blocks import in_blocks, out_of_blocks
from whence.nets.convolution import for_one_volume
from whence.nets.pyramid import CONV


class KLAutoencoder(nn.Module):
    """Images (B, channels, *spatial) -> means and deviations of latents (B, latent, *lower), and back.

    ``features`` from the image's resolution down, each level half the one before; ``multiple`` divides the images. With
    ``patch`` above 1 the finest level sees blocks of so many voxels a side as channels: a fraction of the time. A
    ``frugal`` one computes each block again for the gradient and keeps nothing of its inside: a fraction of the memory.
    It answers in single precision, whatever it computes in.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        features: Sequence[int],
        latent: int,
        blocks: int = 1,
        patch: int = 1,
        frugal: bool = False,
    ) -> None:
        from monai.networks.nets import AutoencoderKL

        super().__init__()
        self.dims, self.features, self.patch, self.frugal = dims, tuple(features), patch, frugal
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
        features = in_blocks(images, self.patch)
        for block in self.net.encoder.blocks:
            features = _through(block, features, self.frugal)
        # MONAI's bounds, between which a deviation is finite.
        logarithm = self.net.quant_conv_log_sigma(features).float().clamp(-30, 20)
        return self.net.quant_conv_mu(features).float(), (logarithm / 2).exp()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of latents."""
        features = self.net.post_quant_conv(latents)
        for block in self.net.decoder.blocks:
            features = _through(block, features, self.frugal)
        return out_of_blocks(features.float(), self.patch)


def _through(block: nn.Module, features: torch.Tensor, frugal: bool) -> torch.Tensor:
    return checkpoint(block, features, use_reentrant=False) if frugal else block(features)


class Told(nn.Module):
    """What a vector (B, width) does to the features (B, C, *spatial) of one level, nothing at first.

    It scales and shifts them by channel, and with ``maps`` above 0 it adds so many learnt maps of them over the frame,
    of ``side`` points an axis, each as far as it says: convolutions know no place but by what they see there, and a
    motion that follows from the vector and the place alone need not be seen.

    Maps begin at 0 and what weighs them at random. The other way round both factors of their product begin near 0,
    and it learns one mode after the other: the mean of all vectors' motions first, how they differ much later.
    """

    def __init__(self, dims: int, width: int, channels: int, maps: int = 0, side: int = 16) -> None:
        super().__init__()
        self.dims, self.parts = dims, (channels, channels, maps)
        self.read = nn.Linear(width, sum(self.parts))
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)
        if maps:
            # Of a network's first answers this makes weights that differ by about 1.
            nn.init.normal_(self.read.weight.data[-maps:], std=2.0)
        self.maps = nn.Parameter(torch.zeros(maps, channels, *[side] * dims)) if maps else None

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        scale, shift, share = self.read(vector).split(self.parts, dim=1)
        scale, shift = (part.reshape(*part.shape, *[1] * self.dims) for part in (scale, shift))
        features = features * (1 + scale) + shift
        if self.maps is None:
            return features
        placed = torch.tensordot(share.to(self.maps), self.maps, dims=1)
        mode = "bilinear" if self.dims == 2 else "trilinear"
        return features + F.interpolate(placed, features.shape[2:], mode=mode, align_corners=True)


# Voxels that an answer of 1 of a decoder's last convolution stands for.
REACH = 0.1


class FieldDecoder(nn.Module):
    """The decoder of an autoencoder, whose last layer answers with a field (B, D, *spatial), voxels, almost 0 at first.

    A tenth of what its last convolution answers is the field: Adam's first steps turn all of its hundreds of weights
    the same way, and at rates that suit the rest the field would leap by voxels, which takes long to unlearn.

    Without the last normalisation: of features whose deviation is 1 whatever the latents say, a field of an old
    brain could not be many times that of a young one. With ``told`` above 0 it is told a vector (B, told) as well, by
    which each level's features are changed (``Told``): what moves, and how far, may then follow from it alone.
    """

    def __init__(self, vae: KLAutoencoder, told: int = 0, maps: int = 0) -> None:
        from monai.networks.nets.autoencoderkl import AEKLResBlock

        super().__init__()
        self.patch, self.frugal = vae.patch, vae.frugal
        self.first = deepcopy(vae.net.post_quant_conv)
        self.blocks = deepcopy(vae.net.decoder.blocks)
        last = CONV[vae.dims](vae.features[0], vae.dims * vae.patch**vae.dims, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3 / REACH)
        nn.init.zeros_(last.bias)
        self.blocks[-2], self.blocks[-1] = nn.Identity(), last
        self.read = nn.Sequential(nn.SiLU(), nn.Linear(told, told), nn.SiLU()) if told else None
        # By the place of the block whose features they change.
        self.told = nn.ModuleDict(
            {
                str(n): Told(vae.dims, told, b.out_channels, maps)
                for n, b in enumerate(self.blocks)
                if isinstance(b, AEKLResBlock) and told
            }
        )
        for_one_volume(self)

    def forward(self, latents: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
        features = self.first(latents)
        read = None if self.read is None or told is None else self.read(told)
        for place, block in enumerate(self.blocks):
            features = _through(block, features, self.frugal)
            if read is not None and str(place) in self.told:
                features = self.told[str(place)](features, read)
        # Places are no whole voxels, of which half precision has 128.
        return out_of_blocks(REACH * features.float(), self.patch)

    def begin_as(self, vae: KLAutoencoder) -> None:
        """Take the weights of the image's decoder, all but the last layer's."""
        self.first.load_state_dict(vae.net.post_quant_conv.state_dict())
        for own, known in zip(self.blocks[:-2], vae.net.decoder.blocks[:-2], strict=True):
            own.load_state_dict(known.state_dict())
