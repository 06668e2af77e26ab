"""The two ways in which small steps make a diffeomorphism, each kept on the grid of a level."""

from __future__ import annotations

from typing import Protocol

import torch

from whence import kernels
from whence.field import Displacement
from whence.space import Grid


class Transform(Protocol):
    """A map under construction: ``displacement`` (1, D, *spatial) in voxels of ``grid``."""

    grid: Grid
    displacement: torch.Tensor

    def take(self, step: torch.Tensor) -> None:
        """Go a small step, voxels."""

    def on(self, grid: Grid, widths: list[float]) -> Transform:
        """The same map on another grid, smoothed there by ``widths`` (voxels, one for each axis)."""


class Greedy:
    """phi <- phi o (id + step): each step is composed with the total, which a small Gaussian keeps smooth.

    Steps far below a voxel are invertible, and so is what they compose to.
    """

    def __init__(self, grid: Grid, widths: list[float], displacement: torch.Tensor | None = None) -> None:
        self.grid, self.widths = grid, widths
        self.displacement = Displacement.identity(grid).tensor if displacement is None else displacement

    def take(self, step: torch.Tensor) -> None:
        self.displacement = kernels.gaussian(kernels.compose(step, self.displacement), self.widths)

    def on(self, grid: Grid, widths: list[float]) -> Greedy:
        return Greedy(grid, widths, Displacement(self.displacement, self.grid).resampled(grid).tensor)


class Stationary:
    """phi = exp(v), v <- v + step smoothed: the first terms of the Baker-Campbell-Hausdorff series (Vercauteren 2008).

    The inverse is exp(-v).
    """

    def __init__(self, grid: Grid, widths: list[float], velocity: torch.Tensor | None = None, steps: int = 6) -> None:
        self.grid, self.widths, self.steps = grid, widths, steps
        self.velocity = Displacement.identity(grid).tensor if velocity is None else velocity
        self.displacement = kernels.exp(self.velocity, steps)

    def take(self, step: torch.Tensor) -> None:
        self.velocity = kernels.gaussian(self.velocity + step, self.widths)
        self.displacement = kernels.exp(self.velocity, self.steps)

    def on(self, grid: Grid, widths: list[float]) -> Stationary:
        velocity = Displacement(self.velocity, self.grid).resampled(grid).tensor
        return Stationary(grid, widths, velocity, self.steps)


TRANSFORMS = {"greedy": Greedy, "svf": Stationary}
