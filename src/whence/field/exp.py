"""From a stationary velocity to a diffeomorphism."""

from __future__ import annotations

from whence import kernels
from whence.field.displacement import Displacement


def exp(velocity: Displacement, steps: int = 7) -> tuple[Displacement, Displacement]:
    """Displacement at time 1 of a stationary velocity field (voxels), and its inverse.

    Scaling and squaring with ``steps`` squarings (Arsigny et al. 2006); the inverse is the exponential
    of the negated velocity.
    """
    forward = Displacement(kernels.exp(velocity.tensor, steps), velocity.grid)
    backward = Displacement(kernels.exp(-velocity.tensor, steps), velocity.grid)
    return forward, backward
