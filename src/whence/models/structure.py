"""Structure maps: what of an image says where things are, whatever their intensities."""

from __future__ import annotations

from collections.abc import Callable

import torch

from whence import kernels

StructureMap = Callable[[torch.Tensor], torch.Tensor]


def edges(image: torch.Tensor, widths: tuple[float, ...] = (1.0, 2.0, 4.0)) -> torch.Tensor:
    """Edge strength (B, len(widths), *spatial) in 0..1 of images (B, C, *spatial) in [-1, 1], one channel a scale.

    m / (m + q) with m the length of the gradient after a Gaussian of ``width`` voxels, the largest of the channels',
    and q twice its mean over the image: a weak edge counts nearly as much as a strong one, whatever its sign.
    """
    found = []
    for width in widths:
        smooth = kernels.gaussian(image, width)
        length = _gradient_length(smooth).amax(dim=1, keepdim=True)
        typical = 2 * length.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
        found.append(length / (length + typical.clamp_min(1e-4)))
    return torch.cat(found, dim=1)


def self_similarity(image: torch.Tensor, width: float = 2.0) -> torch.Tensor:
    """Mean and deviation (B, 2, *spatial), 0..1, of the entries of MIND-SSC at each voxel of images (B, C, *spatial).

    Not the entries themselves: those belong to directions of the lattice, and would be wrong once they are carried
    along a field that turns.
    """
    smooth = kernels.gaussian(image.mean(dim=1, keepdim=True), width)
    entries = kernels.mind_descriptor(smooth, 1, 2)
    mean = entries.mean(dim=1, keepdim=True)
    # An entry lies between 0 and 1, so that its deviation is at most a half.
    return torch.cat([mean, 2 * (entries - mean).square().mean(dim=1, keepdim=True).sqrt()], dim=1)


def edges_and_similarity(image: torch.Tensor) -> torch.Tensor:
    """Edges at three scales and self-similarity, (B, 5, *spatial) in 0..1."""
    return torch.cat([edges(image), self_similarity(image)], dim=1)


# Name: function, number of channels.
STRUCTURES: dict[str, tuple[StructureMap, int]] = {
    "edges": (edges, 3),
    "mind": (self_similarity, 2),
    "edges+mind": (edges_and_similarity, 5),
}


def _gradient_length(image: torch.Tensor) -> torch.Tensor:
    """Length of the central differences, (B, C, *spatial)."""
    axes = [axis for axis in range(2, image.ndim) if image.shape[axis] > 1]
    return torch.stack(torch.gradient(image, dim=axes)).square().sum(dim=0).sqrt()
