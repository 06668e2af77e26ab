"""Thin networks of the methods, 2D and 3D by one argument."""

from whence.nets.diffusion import diffusion_unet
from whence.nets.discriminator import patch_discriminator
from whence.nets.pyramid import Decoder, Encoder, VelocityHead
from whence.nets.resnet import ResNetGenerator
from whence.nets.unet import RegistrationUNet

__all__ = [
    "Decoder",
    "Encoder",
    "RegistrationUNet",
    "ResNetGenerator",
    "VelocityHead",
    "diffusion_unet",
    "patch_discriminator",
]
