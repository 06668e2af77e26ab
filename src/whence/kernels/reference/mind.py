"""MIND-SSC: modality independent neighbourhood descriptor, self-similarity context (Heinrich et al. 2013)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F


def mind_descriptor(image: torch.Tensor, radius: int = 2, dilation: int = 2) -> torch.Tensor:
    """Descriptor (B, K, *spatial) in (0, 1] of an image (B, 1, *spatial); K = 4 in 2D, 12 in 3D.

    Each entry compares the patches of two face neighbours (at ``dilation`` voxels) of the voxel that are
    neighbours of each other; patch distance is a mean over a box of ``radius``, scaled by its own mean
    over the entries.
    """
    dims = image.ndim - 2
    pairs = neighbour_pairs(dims, dilation)
    pad = [dilation] * (2 * dims)
    padded = F.pad(image, pad, mode="replicate")
    pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
    distances = []
    for p, q in pairs:
        difference = (_shift(padded, p, dilation) - _shift(padded, q, dilation)) ** 2
        size = 2 * radius + 1
        distances.append(pool(F.pad(difference, [radius] * (2 * dims), mode="replicate"), size, stride=1))
    distance = torch.cat(distances, dim=1)
    distance = distance - distance.min(dim=1, keepdim=True).values
    variance = distance.mean(dim=1, keepdim=True)
    # Heinrich's bounds keep flat regions from blowing up the exponent.
    typical = variance.detach().mean(dim=tuple(range(1, image.ndim)), keepdim=True)
    variance = torch.clamp(variance, min=typical * 1e-3, max=typical * 1e3).clamp_min(1e-12)
    return torch.exp(-distance / variance)


def neighbour_pairs(dims: int, dilation: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of face neighbours, at ``dilation`` voxels, that are neighbours of each other."""
    offsets = []
    for axis in range(dims):
        for sign in (-1, 1):
            offset = [0] * dims
            offset[axis] = sign * dilation
            offsets.append(tuple(offset))
    return [
        (p, q)
        for p, q in itertools.combinations(offsets, 2)
        if sum((i - j) ** 2 for i, j in zip(p, q, strict=True)) == 2 * dilation**2
    ]


def _shift(padded: torch.Tensor, offset: tuple[int, ...], pad: int) -> torch.Tensor:
    index = [slice(None), slice(None)]
    for axis, step in enumerate(offset):
        stop = padded.shape[2 + axis] - pad + step
        index.append(slice(pad + step, stop))
    return padded[tuple(index)]
