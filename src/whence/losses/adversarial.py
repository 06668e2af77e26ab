"""Least-squares adversarial terms (Mao et al. 2017), on a discriminator's scores of any shape."""

from __future__ import annotations

import torch


def lsgan_generator(fake: torch.Tensor) -> torch.Tensor:
    """E[(D(fake) - 1)^2]: what the generator lowers."""
    return (fake - 1).square().mean()


def lsgan_discriminator(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[(D(real) - 1)^2] / 2 + E[D(fake)^2] / 2: what the discriminator lowers."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())
