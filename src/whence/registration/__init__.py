"""Registration of two images in one world: affine, then diffeomorphic, by instance optimisation."""

from whence.registration.affine import register_affine
from whence.registration.diffeomorphic import register_diffeomorphic

__all__ = ["register_affine", "register_diffeomorphic"]
