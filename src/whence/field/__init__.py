"""How space moves: displacements on grids, their exponential, inverse, composition and Jacobian."""

from whence.field.compose import compose
from whence.field.displacement import Displacement
from whence.field.exp import exp
from whence.field.invert import invert
from whence.field.jacobian import folding, jacobian_determinant
from whence.field.warp import resample, warp

__all__ = [
    "Displacement",
    "compose",
    "exp",
    "folding",
    "invert",
    "jacobian_determinant",
    "resample",
    "warp",
]
