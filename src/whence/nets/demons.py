"""A network that learns what to make of the demons' forces between two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from whence import kernels
from whence.nets.pyramid import LINEAR, Decoder, Encoder, VelocityHead

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

    The same small U-Net is asked once for each of ``scales``, the coarsest first: at so many voxels a voxel it sees the
    moving map as it is carried so far, the fixed one, the forces between them, the context and the scale, and answers
    with what to add to the velocity. A plain U-Net must find out first what a difference beside a gradient means, and
    how far things may have gone. It goes on from ``start``, a velocity, and ``share`` (B,) weighs what it adds.
    Spatial sizes divisible by ``multiple``.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        context: int,
        features: Sequence[int],
        scales: Sequence[int] = (4, 2, 1),
        squarings: int = 6,
    ) -> None:
        super().__init__()
        self.scales, self.squarings, self.mode = tuple(scales), squarings, LINEAR[dims]
        self.encoder = Encoder(dims, (2 + dims) * channels + context + 1, features)
        self.decoder = Decoder(dims, features, stop=1)
        self.head = VelocityHead(dims, features[1], scale=2)
        self.multiple = max(self.scales) * self.encoder.multiple

    def forward(
        self,
        moving: torch.Tensor,
        fixed: torch.Tensor,
        context: torch.Tensor,
        start: torch.Tensor | None = None,
        share: torch.Tensor | None = None,
    ) -> torch.Tensor:
        shape = moving.shape[2:]
        velocity = moving.new_zeros((len(moving), len(shape), *shape)) if start is None else start
        for turn, scale in enumerate(self.scales):
            still = turn == 0 and start is None
            carried = moving if still else kernels.warp(moving, kernels.exp(velocity, self.squarings))
            maps, goal, beside = (_shrunk(part, scale) for part in (carried, fixed, context))
            size = maps.new_full((len(maps), 1, *maps.shape[2:]), 1 / scale)
            seen = torch.cat([maps, goal, demons_forces(maps, goal), beside, size], dim=1)
            more = self.head(self.decoder(self.encoder(seen)), maps.shape[2:]) * scale
            if scale > 1:
                more = F.interpolate(more, size=shape, mode=self.mode, align_corners=False)
            velocity = velocity + (more if share is None else more * share.to(more).reshape(-1, *[1] * (more.ndim - 1)))
        return velocity


def _shrunk(images: torch.Tensor, scale: int) -> torch.Tensor:
    """Means of blocks of ``scale`` voxels a side."""
    return images if scale == 1 else F.interpolate(images, scale_factor=1 / scale, mode="area")
