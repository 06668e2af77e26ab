"""Affine registration: start by moments, coarse to fine, any similarity."""

from __future__ import annotations

import numpy as np
import torch

from whence import kernels
from whence.field import resample
from whence.losses import Similarity, make_similarity
from whence.registration.intensity import scaled
from whence.space import Grid, Volume


def register_affine(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None = None,
    spacings: tuple[float, ...] = (8.0, 4.0, 3.0),
    iterations: int = 100,
) -> np.ndarray:
    """Affine (D+1, D+1) from world points (RAS mm) of ``fixed`` to those of ``moving``.

    Starts by bringing the centres of intensity together, then follows the gradient of the similarity
    (NMI by default) over ``spacings`` in mm, each no finer than the fixed image.
    """
    similarity = similarity or make_similarity("nmi")
    dims = fixed.dims
    fixed, moving = scaled(fixed), scaled(moving)
    centre = _centre_of_intensity(fixed)
    start = _centre_of_intensity(moving) - centre
    # Angles, log-scales and shears act on tens of mm, translations on mm: one step length for all.
    extent = float(np.max(np.asarray(fixed.grid.shape) * fixed.grid.spacing) / 2)
    linear = torch.zeros((dims, dims), requires_grad=True)
    offset = torch.zeros(dims, requires_grad=True)
    finest = float(np.mean(fixed.grid.spacing))
    for spacing in dict.fromkeys(max(s, finest) for s in spacings):
        lattice = fixed.grid.resampled(spacing)
        still = resample(_smoothed(fixed, spacing), lattice).tensor
        moved = _smoothed(moving, spacing)
        world = torch.from_numpy(
            np.moveaxis(lattice.to_world(_indices(lattice)) - centre, -1, 0)[None].astype(np.float32)
        )
        optimiser = torch.optim.Adam([linear, offset], lr=0.02 * min(1.0, spacing / 4))
        for _ in range(iterations):
            points = world + torch.einsum("ij,bj...->bi...", linear, world)
            shift = offset * extent + torch.from_numpy(centre + start).float()
            points = points + shift.reshape(1, dims, *[1] * dims)
            loss = similarity(kernels.sample(moved.tensor, _voxels(points, moved.grid)), still)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    matrix = np.eye(dims + 1)
    inner = np.eye(dims) + linear.detach().double().numpy()
    matrix[:dims, :dims] = inner
    matrix[:dims, dims] = centre + start + offset.detach().double().numpy() * extent - inner @ centre
    return matrix


def _indices(grid: Grid) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1).astype(np.float64)


def _voxels(world: torch.Tensor, grid: Grid) -> torch.Tensor:
    inverse = torch.from_numpy(np.linalg.inv(grid.affine)).to(world)
    dims = grid.dims
    shift = inverse[:dims, dims].reshape(1, dims, *[1] * dims)
    return torch.einsum("ij,bj...->bi...", inverse[:dims, :dims], world) + shift


def _smoothed(volume: Volume, spacing: float) -> Volume:
    sigma = 0.5 * spacing / float(np.mean(volume.grid.spacing))
    return volume.with_tensor(kernels.gaussian(volume.tensor, sigma)) if sigma > 0.5 else volume


def _centre_of_intensity(volume: Volume) -> np.ndarray:
    weights = (volume.numpy() + 1) / 2
    total = weights.sum()
    if not total > 0:
        return volume.grid.centre
    places = [
        float((np.arange(n) * weights.sum(axis=_others(a, volume.dims))).sum() / total)
        for a, n in enumerate(volume.grid.shape)
    ]
    return volume.grid.to_world(np.asarray(places))


def _others(axis: int, dims: int) -> tuple[int, ...]:
    return tuple(a for a in range(dims) if a != axis)
