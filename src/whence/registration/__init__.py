"""Registration of two images by instance optimisation: affine, then diffeomorphic, with any similarity."""

from whence.registration.affine import register_affine
from whence.registration.diffeomorphic import default_similarity, register_diffeomorphic
from whence.registration.register import Registration, register
from whence.registration.settings import PRESETS, AffineSettings, DiffeomorphicSettings, Settings, preset

__all__ = [
    "PRESETS",
    "AffineSettings",
    "DiffeomorphicSettings",
    "Registration",
    "Settings",
    "default_similarity",
    "preset",
    "register",
    "register_affine",
    "register_diffeomorphic",
]
