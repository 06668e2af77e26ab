"""Thin networks of the methods, 2D and 3D by one argument."""

from whence.nets.discriminator import patch_discriminator
from whence.nets.pyramid import Decoder, Encoder, VelocityHead

__all__ = ["Decoder", "Encoder", "VelocityHead", "patch_discriminator"]
