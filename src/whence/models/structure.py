"""Structure maps: what of an image says where things are, whatever their intensities."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch

from whence import kernels
from whence.errors import InputError

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


def structure_map(name: str, dims: int, channels: int = 1) -> tuple[StructureMap, int]:
    """The structure map of a name and how many channels it gives images of ``channels``.

    A name of ``STRUCTURES``, or ``module:function``: any function of images (B, C, *spatial) in [-1, 1] that returns
    maps (B, K, *spatial), best in 0..1. Raises InputError for an unknown name or a function that returns something
    else.
    """
    if ":" not in name:
        if name not in STRUCTURES:
            raise InputError(f"unknown structure {name!r}; expected one of {', '.join(STRUCTURES)}, or module:function")
        return STRUCTURES[name]
    module, _, function = name.partition(":")
    try:
        found: StructureMap = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"structure {name!r} cannot be had: {error}") from error
    probe = torch.rand((1, channels, *[16] * dims), generator=torch.Generator().manual_seed(0))
    maps = found(2 * probe - 1)
    if not isinstance(maps, torch.Tensor) or maps.shape[2:] != probe.shape[2:] or maps.ndim != probe.ndim:
        got = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
        raise InputError(
            f"structure {name!r} returns {got} for images of {tuple(probe.shape)}; expected (1, K, *spatial)"
        )
    return found, maps.shape[1]


def _gradient_length(image: torch.Tensor) -> torch.Tensor:
    """Length of the central differences, (B, C, *spatial)."""
    axes = [axis for axis in range(2, image.ndim) if image.shape[axis] > 1]
    return torch.stack(torch.gradient(image, dim=axes)).square().sum(dim=0).sqrt()
