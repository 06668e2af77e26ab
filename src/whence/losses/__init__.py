"""What training and registration minimise: similarity, regularity, adversarial terms."""

from whence.losses.adversarial import lsgan_discriminator, lsgan_generator
from whence.losses.both_ways import both_ways
from whence.losses.regularity import bending_energy, gradient_energy
from whence.losses.similarity import (
    SIMILARITIES,
    Similarity,
    across_modalities,
    make_similarity,
    normalised_mutual_information,
)

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "across_modalities",
    "bending_energy",
    "both_ways",
    "gradient_energy",
    "lsgan_discriminator",
    "lsgan_generator",
    "make_similarity",
    "normalised_mutual_information",
]
