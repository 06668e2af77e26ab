"""Random spatial transforms: a small affine followed by an elastic deformation, as IMSE's protocol has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from whence import kernels
from whence.field import Displacement, exp, jacobian_determinant
from whence.space import Grid

# Side of the images for which the protocol's amplitude and sigma are stated.
REFERENCE_SIDE = 240


@dataclass(frozen=True)
class Perturbation:
    """How far images are moved.

    Args:
        rotation: largest rotation about each axis, degrees.
        translation: largest shift along each axis, in coordinates that run from -1 to 1 over the image.
        scaling: largest change of scale along each axis.
        elastic: amplitude of uniform noise before its Gaussian, pixels of an image of 240 pixels a side; in 3D
            too the strength that a Gaussian in 2D would leave.
        elastic_sigma: the Gaussian's sigma, pixels of such an image.
    """

    rotation: float = 3.0
    translation: float = 0.08
    scaling: float = 0.08
    elastic: float = 120.0
    elastic_sigma: float = 12.0

    def __post_init__(self) -> None:
        for name in ("rotation", "translation", "scaling", "elastic"):
            if not 0 <= getattr(self, name) < 1e4:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if not (self.scaling < 0.9 and self.elastic_sigma > 0):
            raise ValueError(
                f"expected scaling below 0.9 and elastic_sigma above 0; got {self.scaling}, {self.elastic_sigma}"
            )

    def draw(self, count: int, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Displacements (count, D, *shape) in voxels, on the CPU: p + u(p) = affine(p + elastic(p))."""
        return after_affine(self.affine(count, shape, generator), self.bend(count, shape, generator))

    def affine(self, count: int, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Affine maps (count, D, D + 1) of voxel coordinates relative to the image's centre."""
        dims = len(shape)

        def draw(*size: int) -> torch.Tensor:
            return 2 * torch.rand(count, *size, generator=generator) - 1

        linear = torch.diag_embed(1 + self.scaling * draw(dims))
        for a in range(dims):
            for b in range(a + 1, dims):
                angle = math.radians(self.rotation) * draw()
                turn = torch.eye(dims).repeat(count, 1, 1)
                turn[:, a, a] = turn[:, b, b] = angle.cos()
                turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
                linear = turn @ linear
        half = (torch.tensor(list(shape), dtype=torch.float32) - 1) / 2
        shift = self.translation * draw(dims) * half
        return torch.cat([linear, shift[..., None]], dim=2)

    def bend(self, count: int, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Smooth random displacements (count, D, *shape) in voxels."""
        scale = max(shape) / REFERENCE_SIDE
        sigma = max(self.elastic_sigma * scale, 0.5)
        # Noise beyond the image as well, or its border would bend more than its middle.
        margin = round(3 * sigma)
        noise = torch.randn((count, len(shape), *(n + 2 * margin for n in shape)), generator=generator)
        smooth = kernels.gaussian(noise, sigma)[(..., *(slice(margin, margin + n) for n in shape))]
        # A Gaussian in D dimensions leaves white noise (2 sqrt(pi) sigma)^(-D/2) of its deviation.
        left = (2 * math.sqrt(math.pi) * sigma) ** (-len(shape) / 2)
        strength = self.elastic / math.sqrt(3) / (2 * math.sqrt(math.pi) * self.elastic_sigma) * scale
        return smooth * (strength / left)


def after_affine(affine: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Displacement (B, D, *spatial) of p -> A(p + u(p)), A (B, D, D + 1) in voxels about the image's centre."""
    shape = displacement.shape[2:]
    dims = len(shape)
    middle = (torch.tensor(list(shape), dtype=torch.float32) - 1) / 2
    middle = middle.reshape(1, dims, *[1] * dims)
    here = kernels.identity(tuple(shape))
    reached = here + displacement - middle
    moved = torch.einsum("bij,bj...->bi...", affine[:, :, :dims], reached)
    return moved + affine[:, :, dims].reshape(-1, dims, *[1] * dims) + middle - here


def known_motion(rng: np.random.Generator, grid: Grid, least: float = 0.2) -> tuple[Displacement, Displacement]:
    """phi = A o exp(v) on a grid by IMSE's protocol, and its inverse.

    The elastic part is weakened where it would nearly fold: no determinant falls below ``least``.
    """
    from whence.data.phantom.motion import refine_inverse

    protocol = Perturbation()
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    affine = protocol.affine(1, grid.shape, generator)
    velocity = protocol.bend(1, grid.shape, generator)
    undone = torch.linalg.inv(affine[:, :, :-1])
    undone = torch.cat([undone, -undone @ affine[:, :, -1:]], dim=2)
    still = torch.zeros_like(velocity)
    while True:
        there, back = exp(Displacement(velocity, grid))
        forward = Displacement(after_affine(affine, there.tensor), grid)
        nearly = kernels.compose(after_affine(undone, still), back.tensor)
        backward = refine_inverse(forward, Displacement(nearly, grid))
        if min(float(jacobian_determinant(f).min()) for f in (forward, backward)) >= least:
            return forward, backward
        velocity = 0.9 * velocity
