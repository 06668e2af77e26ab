"""Thin networks of the methods, 2D and 3D by one argument."""

from whence.nets.carrier import Carrier
from whence.nets.demons import DemonsNet, demons_forces
from whence.nets.diffusion import DenoisingUNet
from whence.nets.discriminator import patch_discriminator
from whence.nets.pyramid import Decoder, Encoder, VelocityHead
from whence.nets.reader import Reader
from whence.nets.resnet import ResNetGenerator
from whence.nets.unet import RegistrationUNet

__all__ = [
    "Carrier",
    "Decoder",
    "DemonsNet",
    "DenoisingUNet",
    "Encoder",
    "Reader",
    "RegistrationUNet",
    "ResNetGenerator",
    "VelocityHead",
    "demons_forces",
    "patch_discriminator",
]
