"""Steps of about one length whatever the force, by the moments of its history."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from whence import kernels

# A force of images in [-1, 1] below which there is only rounding: two images that agree stay where they are.
LEAST = 1e-4


class Adam:
    """Adam (Kingma and Ba 2015) on a vector field, with one second moment a voxel, that of the vector's length.

    Unlike one a component, it does not turn a step towards the axes of the lattice. ``floor`` times the first
    force's root-mean-square length is added to every length: where nothing is seen, nothing moves, whereas
    plain Adam (``floor`` 0) takes full steps wherever the noise is pointing.
    """

    def __init__(self, floor: float, momentum: float = 0.9, memory: float = 0.99) -> None:
        self.momentum, self.memory, self.floor = momentum, memory, floor
        self.first: torch.Tensor | None = None
        self.second: torch.Tensor | None = None
        self.least = 0.0
        self.count = 0

    def __call__(self, force: torch.Tensor, step: float, scale: Sequence[float]) -> torch.Tensor:
        """A step (1, D, *spatial) along a force of that shape, of about the length ``step`` times ``scale``."""
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(force), torch.zeros_like(force[:, :1])
            self.least = max(self.floor * float(force.square().mean()) ** 0.5, LEAST)
        self.count += 1
        rates = (1 - self.momentum, 1 - self.memory)
        corrections = (1 / (1 - self.momentum**self.count), 1 / (1 - self.memory**self.count))
        factors = [step * s for s in scale]
        return kernels.moment_step(force, self.first, self.second, rates, corrections, self.least, factors)
