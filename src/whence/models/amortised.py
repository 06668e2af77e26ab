"""The amortised registration network of Diff-Def: it learns on people, then says how far an atlas lies off.

U-Net after VoxelMorph (Balakrishnan et al. 2019), both directions, local correlation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from whence import kernels
from whence.data.frame import up_to_multiple
from whence.losses import both_ways, make_similarity
from whence.nets import RegistrationUNet, VelocityHead

# Voxels a side within which images are correlated.
CORRELATED = 9


class AmortisedRegistration(nn.Module):
    """Images moving and fixed (B, C, *spatial) -> velocity (B, D, *spatial), voxels, that carries one onto the other.

    Half of the difference of both directions' answers, which is 0 of an image to itself and turns its sign with the
    direction: what the network would answer to anything moves no atlas. Sizes divisible by ``multiple``. ``window`` is
    the side in voxels of the random windows that it learns in, 0 for whole images; ``frugal`` asks for the mean over
    people one by one, and computes each person and each direction again for the gradient.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        down: Sequence[int],
        up: Sequence[int],
        patch: int = 1,
        window: int = 0,
        squarings: int = 7,
        frugal: bool = False,
    ) -> None:
        super().__init__()
        self.net = RegistrationUNet(dims, 2 * channels, down, up, patch)
        self.head = VelocityHead(dims, up[-1], patch=patch)
        self.multiple = self.net.multiple
        self.window, self.squarings, self.frugal = window, squarings, frugal

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        there, back = (
            checkpoint(self._one, *pair, use_reentrant=False) if self.frugal else self._one(*pair)
            for pair in ((moving, fixed), (fixed, moving))
        )
        return (there - back) / 2

    def _one(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(torch.cat((moving, fixed), dim=1)), moving.shape[2:])

    def moved(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """The displacement (B, D, *spatial), voxels, of the velocity."""
        return kernels.exp(self(moving, fixed), self.squarings)

    def terms(self, moving: torch.Tensor, fixed: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Of one window of both images how unlike they are, carried both ways, and the velocity's gradient energy."""
        seen = self.seen(moving.shape[2:], generator)
        moving, fixed = moving[seen], fixed[seen]
        return both_ways(self(moving, fixed), moving, fixed, make_similarity("ncc", window=CORRELATED), self.squarings)

    def seen(self, shape: Sequence[int], generator: torch.Generator) -> tuple[slice, ...]:
        """Index of a random window of images (B, C, *shape); as large as they are, where that is no larger."""
        sides = up_to_multiple([self.window] * len(shape), self.multiple)
        found = [slice(None), slice(None)]
        for whole, side in zip(shape, sides, strict=True):
            length = min(whole, side or whole)
            start = int(torch.randint(0, whole - length + 1, (), generator=generator))
            found.append(slice(start, start + length))
        return tuple(found)

    def mean(self, atlas: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Mean displacement (B, D, *spatial), voxels, of atlases (B, C, *spatial) to people (B, N * C, *spatial)."""
        people = near.unflatten(1, (-1, atlas.shape[1]))
        if self.frugal:
            found = [checkpoint(self.moved, atlas, person, use_reentrant=False) for person in people.unbind(dim=1)]
            return torch.stack(found).mean(dim=0)
        moving = atlas[:, None].expand(-1, people.shape[1], *[-1] * (atlas.ndim - 1)).flatten(0, 1)
        return self.moved(moving, people.flatten(0, 1)).unflatten(0, people.shape[:2]).mean(dim=1)
