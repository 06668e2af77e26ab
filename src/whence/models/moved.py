"""Images moved by random maps that are then known, as another device might show them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from whence import kernels
from whence.data.perturbation import Perturbation, after_affine
from whence.models.remap import shuffle_remap


@dataclass(frozen=True)
class RandomMotion:
    """Random diffeomorphisms of a fine and a coarse part and an affine one, each from none to its full strength."""

    fine: Perturbation
    coarse: Perturbation
    squarings: int = 6

    def __call__(
        self, count: int, shape: tuple[int, ...], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps and their inverses (count, D, *shape) in voxels, on the CPU."""
        parts = (
            after_affine(self.fine.affine(count, shape, generator), torch.zeros(count, len(shape), *shape)),
            self.fine.bend(count, shape, generator),
            self.coarse.bend(count, shape, generator),
        )
        size = (count, *[1] * (len(shape) + 1))
        velocity = torch.stack([torch.rand(size, generator=generator) * part for part in parts]).sum(dim=0)
        return kernels.exp(velocity, self.squarings), kernels.exp(-velocity, self.squarings)


def another_device(image: torch.Tensor, generator: torch.Generator, remapped: float, disturbed: float) -> torch.Tensor:
    """The same things in other intensities (Shuffle Remap) in a share of a batch, and under other noise.

    Images (B, C, *spatial) in [-1, 1]; ``disturbed`` is the largest standard deviation of the noise.
    """
    # Remapped as it is, noise between two intensities would become as strong as what it hides.
    smooth = kernels.gaussian(image, 1.0)
    shown = torch.where(turns(remapped, image, generator), shuffle_remap(smooth, generator, (2, 8)), image)
    strength = disturbed * torch.rand((len(image), *[1] * (image.ndim - 1)), generator=generator)
    noise = torch.randn(image.shape, generator=generator)
    return shown + (strength * noise).to(image)


def turns(share: float, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Whose turn it is, (B, 1, 1...): true for a share of the batch."""
    return (torch.rand((len(like), *[1] * (like.ndim - 1)), generator=generator) < share).to(like.device)
