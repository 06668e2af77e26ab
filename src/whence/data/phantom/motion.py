"""How tissue moves: pressure from a growing or collapsing region, and exact maps between two dates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft

from whence import kernels
from whence.data.phantom.noise import frequencies, squared_frequency
from whence.field import Displacement, compose, exp, jacobian_determinant
from whence.space import Grid


def pressure_flow(source: np.ndarray, compliance: np.ndarray, reach: float, spacing: float) -> np.ndarray:
    """Velocity (D, *shape) away from a region, largest length 1: the gradient of a screened pressure.

    ``source`` (*shape) is where volume appears, ``compliance`` (*shape) scales the flow (small at the
    skull), ``reach`` is the distance in mm over which the pressure fades. Solves
    (1/reach^2 - laplacian) pressure = source.
    """
    shape = source.shape
    spectrum = fft.rfftn(source) / (squared_frequency(shape) + (spacing / reach) ** 2)
    flow = np.stack([fft.irfftn(-1j * k * spectrum, s=shape) for k in frequencies(shape)])
    flow *= compliance
    return flow / max(float(np.sqrt((flow**2).sum(axis=0)).max()), 1e-12)


@dataclass(frozen=True, eq=False)
class TwoDates:
    """Maps between one anatomy and its two dates, and between the dates; all on one grid.

    ``before``, ``after`` : pull-backs from a date's grid into the anatomy.
    ``displacement`` : after -> before; ``inverse`` : before -> after.
    ``strength`` : 1, or what the velocities were scaled by to keep every det J positive.
    """

    before: Displacement
    after: Displacement
    displacement: Displacement
    inverse: Displacement
    strength: float


def two_dates(before: np.ndarray, after: np.ndarray, grid: Grid, least: float = 0.05) -> TwoDates:
    """Both dates from the stationary velocities (D, *shape), mm, of their pull-backs into the anatomy.

    displacement = exp(before)^-1 o exp(after). Where a determinant falls below ``least``, both
    velocities are weakened by steps of a tenth, the same at each run.
    """
    spacing = float(grid.spacing[0])
    strength = 1.0
    while True:
        scale = strength / spacing
        before_map, before_back = exp(_field(before * scale, grid))
        after_map, after_back = exp(_field(after * scale, grid))
        displacement = compose(after_map, before_back)
        inverse = refine_inverse(displacement, compose(before_map, after_back))
        fields = (before_map, after_map, displacement, inverse)
        if min(float(jacobian_determinant(f).min()) for f in fields) >= least or strength < 0.05:
            return TwoDates(before_map, after_map, displacement, inverse, strength)
        strength *= 0.9


def refine_inverse(displacement: Displacement, inverse: Displacement, iterations: int = 3) -> Displacement:
    """A nearly exact inverse made exact to interpolation: psi <- psi o (id - e), e = phi o psi - id.

    Unlike the plain fixed point it converges where the map stretches more than twofold.
    """
    u, v = displacement.tensor, inverse.tensor
    for _ in range(iterations):
        error = kernels.compose(v, u)
        v = kernels.compose(-error, v)
    return Displacement(v, inverse.grid)


def _field(velocity: np.ndarray, grid: Grid) -> Displacement:
    return Displacement(torch.from_numpy(np.ascontiguousarray(velocity, dtype=np.float32))[None], grid)
