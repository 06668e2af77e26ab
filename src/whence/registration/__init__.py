"""Registration of two images by instance optimisation: affine, then diffeomorphic, with any similarity."""

from whence.registration.affine import register_affine
from whence.registration.diffeomorphic import register_diffeomorphic
from whence.registration.register import Registration, register
from whence.registration.settings import PRESETS, AffineSettings, DiffeomorphicSettings, Settings, preset

__all__ = [
    "PRESETS",
    "AffineSettings",
    "DiffeomorphicSettings",
    "Registration",
    "Settings",
    "preset",
    "register",
    "register_affine",
    "register_diffeomorphic",
]
