"""A network that learns what to make of the demons' forces between two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from whence import kernels
from whence.nets.pyramid import Decoder, Encoder, VelocityHead

# Weight of the difference against the gradient: bounds a force by half of 1 / sqrt(0.1), some 1.6 voxels a channel.
_DAMPING = 0.1


def demons_forces(moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """Forces (B, K * D, *spatial), in voxels, that push ``moving`` (B, K, *spatial) onto ``fixed``, by channel.

    f = (F - M) g / (|g|^2 + k (F - M)^2) with g the mean of both gradients: Thirion's demons (1998) in the symmetric
    form, at a displacement that pulls back.
    """
    axes = tuple(range(2, moving.ndim))
    gradient = torch.stack(torch.gradient((moving + fixed) / 2, dim=axes), dim=2)
    apart = (fixed - moving)[:, :, None]
    length = gradient.square().sum(dim=2, keepdim=True)
    return (apart * gradient / (length + _DAMPING * apart.square() + 1e-4)).flatten(1, 2)


class DemonsNet(nn.Module):
    """Moving and fixed maps (B, K, *spatial), context (B, C, *spatial) -> velocity (B, D, *spatial) in voxels.

    The same small U-Net is asked ``passes`` times: it sees the moving map as it is carried so far, the fixed one, the
    forces between them and the context, and answers with what to add to the velocity, at half resolution. A plain
    U-Net must find out first what a difference beside a gradient means: at equal time it learns a third as much.
    Spatial sizes divisible by ``multiple``.
    """

    def __init__(
        self, dims: int, channels: int, context: int, features: Sequence[int], passes: int = 2, squarings: int = 6
    ) -> None:
        super().__init__()
        self.passes, self.squarings = passes, squarings
        self.encoder = Encoder(dims, (2 + dims) * channels + context, features)
        self.decoder = Decoder(dims, features, stop=1)
        self.head = VelocityHead(dims, features[1], scale=2)
        self.multiple = self.encoder.multiple

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        carried = moving
        velocity = moving.new_zeros((len(moving), moving.ndim - 2, *moving.shape[2:]))
        for turn in range(self.passes):
            if turn:
                carried = kernels.warp(moving, kernels.exp(velocity, self.squarings))
            seen = torch.cat([carried, fixed, demons_forces(carried, fixed), context], dim=1)
            velocity = velocity + self.head(self.decoder(self.encoder(seen)), moving.shape[2:])
        return velocity
