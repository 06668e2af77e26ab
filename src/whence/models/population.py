"""Where the target's population has what a source shows: the smallest motion that an adversary cannot tell from it.

    p   = P(S)                                                velocity, from the source's structure S alone
    L   = w_a E[(C(S o exp(p)) - 1)^2] + w_r |grad p|^2       population, smoothness
    L_C = E[(C(S_y) - 1)^2] / 2 + E[C(S o exp(p))^2] / 2 + g |grad C(S_y)|^2

S_y are structures of targets, of other people. A motion that is no larger than it must be keeps what a person has of
their own, where the mean of maps to other people would give everyone the same shape: the transport of one population's
shapes to the other's at least cost. Least squares (Mao et al. 2017); the penalty at what is real, g = 10, is R1
(Mescheder et al. 2018), every fourth step four times (Karras et al. 2020). The equations are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from whence import kernels
from whence.losses import gradient_energy, lsgan_discriminator, lsgan_generator
from whence.models.method import frozen
from whence.nets import Decoder, Encoder, VelocityHead, patch_discriminator

_PENALTY, _EVERY = 10.0, 4
# A critic that saw single voxels would know what has been interpolated.
_SOFTENED = 1.0


class Population(nn.Module):
    """Structures (B, K, *spatial) of sources -> velocity (B, D, *spatial) in voxels; sizes divisible by ``multiple``.

    Structures must look alike in both domains, as labels do: what a critic can tell by its looks no motion hides.
    """

    def __init__(self, dims: int, channels: int, features: Sequence[int], squarings: int) -> None:
        super().__init__()
        self.squarings = squarings
        self.encoder = Encoder(dims, channels, features)
        self.decoder = Decoder(dims, features, stop=1)
        self.head = VelocityHead(dims, features[1], scale=2)
        self.critic = patch_discriminator(dims, channels, features[1], norm=None)
        self.multiple = self.encoder.multiple

    def forward(self, structure: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(structure)), structure.shape[2:])

    def movers(self) -> list[nn.Parameter]:
        """What ``terms`` trains."""
        return [p for part in (self.encoder, self.decoder, self.head) for p in part.parameters()]

    def terms(self, source: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Terms of the loss for structures of sources, and these as they are carried, for ``judged``."""
        velocity = self(source)
        carried = self._shown(kernels.warp(source, kernels.exp(velocity, self.squarings)))
        with frozen([self.critic]):
            fooled = lsgan_generator(self.critic(carried)[-1])
        return {"population": fooled, "population smooth": gradient_energy(velocity)}, carried.detach()

    def judged(self, target: torch.Tensor, carried: torch.Tensor, step: int) -> torch.Tensor:
        """What the critic lowers at a step, for structures of targets and carried ones of sources."""
        real = self._shown(target).requires_grad_(step % _EVERY == 0)
        scores = self.critic(real)[-1]
        loss = lsgan_discriminator(scores, self.critic(carried)[-1])
        if step % _EVERY == 0:
            each = scores.flatten(1).mean(dim=1).sum()
            (slope,) = torch.autograd.grad(each, real, create_graph=True)
            loss = loss + _EVERY * _PENALTY * slope.square().flatten(1).sum(dim=1).mean()
        return loss

    def _shown(self, structure: torch.Tensor) -> torch.Tensor:
        return kernels.gaussian(structure, _SOFTENED)
