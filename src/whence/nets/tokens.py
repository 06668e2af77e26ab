"""Attributes as vectors that a network attends to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class AttributeTokens(nn.Module):
    """Attributes (B, K) -> tokens (B, K, width); NaN, unknown, is a vector that is learnt.

    ``kinds`` says of each attribute how many words it may be, 0 for a number in deviations from a mean. A number's
    Fourier features have periods of 16 deviations and halves of it, so that laws of it come out smooth.
    """

    def __init__(self, kinds: Sequence[int], width: int, frequencies: int = 4) -> None:
        super().__init__()
        self.kinds, self.frequencies = tuple(kinds), frequencies
        self.parts = nn.ModuleList(
            nn.Embedding(words, width)
            if words
            else nn.Sequential(nn.Linear(1 + 2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
            for words in self.kinds
        )
        self.unknown = nn.Parameter(0.02 * torch.randn(len(self.kinds), width))

    def forward(self, attributes: torch.Tensor) -> torch.Tensor:
        known = ~torch.isnan(attributes)
        filled = torch.where(known, attributes, 0.0)
        tokens = [
            part(column.long()) if words else part(self._features(column))
            for part, words, column in zip(self.parts, self.kinds, filled.unbind(dim=1), strict=True)
        ]
        return torch.where(known[..., None], torch.stack(tokens, dim=1), self.unknown)

    def _features(self, numbers: torch.Tensor) -> torch.Tensor:
        periods = 2 * math.pi / 16 * 2.0 ** torch.arange(self.frequencies, device=numbers.device)
        angles = numbers[:, None] * periods
        return torch.cat([numbers[:, None], angles.sin(), angles.cos()], dim=1)
