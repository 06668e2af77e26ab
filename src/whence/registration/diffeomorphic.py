"""Diffeomorphic registration by optimising one stationary velocity, coarse to fine."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from whence import kernels
from whence.field import Displacement, resample
from whence.losses import Similarity, gradient_energy, make_similarity
from whence.nets.pyramid import LINEAR
from whence.registration.intensity import scaled
from whence.space import Volume


def register_diffeomorphic(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None = None,
    mask: torch.Tensor | None = None,
    smoothness: float = 0.5,
    levels: tuple[int, ...] = (4, 2, 1),
    iterations: int = 60,
    steps: int = 7,
) -> tuple[Displacement, Displacement]:
    """Displacement on the fixed grid that carries ``moving`` onto ``fixed``, and its inverse, same grid.

    ``similarity`` is local NCC by default; ``levels`` are factors of down-sampling. ``mask``
    (1, 1, *spatial) on the fixed grid says where the images are compared. The moving image is first
    brought to the fixed grid, so the two should roughly be aligned.
    """
    similarity = similarity or make_similarity("ncc")
    still, moved = scaled(fixed).tensor, resample(scaled(moving), fixed.grid).tensor
    shape = fixed.grid.shape
    velocity = still.new_zeros((1, fixed.dims, *shape))
    for factor in levels:
        coarse = tuple(max(8, round(n / factor)) if n > 1 else 1 for n in shape)
        target, source = _resized(still, coarse), _resized(moved, coarse)
        weight = None if mask is None else _resized(mask.float(), coarse)
        current = _refined(velocity, coarse).detach().requires_grad_(True)
        optimiser = torch.optim.Adam([current], lr=0.1)
        for _ in range(iterations):
            warped = kernels.warp(source, kernels.exp(current, steps))
            if weight is not None:
                warped = warped * weight + target * (1 - weight)
            loss = similarity(warped, target) + smoothness * gradient_energy(current)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        velocity = _refined(current.detach(), shape)
    forward = Displacement(kernels.exp(velocity, steps), fixed.grid)
    return forward, Displacement(kernels.exp(-velocity, steps), fixed.grid)


def _resized(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape[2:]) == shape:
        return image
    return F.interpolate(image, size=shape, mode="area")


def _refined(velocity: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Velocity in voxels of another lattice over the same view."""
    old = velocity.shape[2:]
    if tuple(old) == shape:
        return velocity
    finer = F.interpolate(velocity, size=shape, mode=LINEAR[len(shape)], align_corners=False)
    factors = torch.tensor([n / o for n, o in zip(shape, old, strict=True)])
    return finer * factors.reshape(1, -1, *[1] * len(shape)).to(finer)
