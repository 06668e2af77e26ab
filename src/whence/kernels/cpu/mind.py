"""MIND-SSC descriptors by sliding sums, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cpu import mind_loops as loops
from whence.kernels.cpu.launch import run
from whence.kernels.reference.mind import neighbour_pairs


def mind_descriptor(image: torch.Tensor, radius: int, dilation: int) -> torch.Tensor:
    """As the reference's ``mind_descriptor``."""
    return _Descriptor.apply(image.contiguous(), radius, dilation)


class _Descriptor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, radius: int, dilation: int) -> torch.Tensor:
        pairs, sizes = _pairs(image.ndim - 2, dilation), _three(image)
        batch, count, plane = image.shape[0], pairs.shape[0], sizes[1] * sizes[2]
        distances = image.new_empty((batch, count, *image.shape[2:]))
        run(loops.differences, image, distances, pairs, batch, count, *sizes)
        _box(distances, sizes, radius, adjoint=False)
        variance = image.new_empty((batch, *sizes))
        sums = image.new_empty((batch, sizes[0]), dtype=torch.float64)
        run(loops.excess, distances, variance, sums, batch, count, sizes[0], plane)
        typical = (sums.sum(dim=1) / variance[0].numel()).float()
        # Heinrich's bounds keep flat regions from blowing up the exponent.
        bounds = torch.stack([typical * 1e-3, typical * 1e3], dim=1)
        run(loops.exponents, distances, variance, bounds, batch, count, sizes[0], plane)
        descriptor = distances.exp_()
        ctx.save_for_backward(image, descriptor, variance, bounds, pairs)
        ctx.radius, ctx.dilation = radius, dilation
        return descriptor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image, descriptor, variance, bounds, pairs = ctx.saved_tensors
        sizes, batch, count = _three(image), image.shape[0], pairs.shape[0]
        slope = torch.special.entr(descriptor)
        plane = sizes[1] * sizes[2]
        run(loops.slopes, descriptor, grad.contiguous(), slope, variance, bounds, batch, count, sizes[0], plane)
        _box(slope, sizes, ctx.radius, adjoint=True)
        result = torch.zeros_like(image)
        chunks = max(1, min(sizes[0] // (4 * ctx.dilation), -(-4 * torch.get_num_threads() // batch)))
        run(loops.collect, image, slope, result, pairs, batch, count, *sizes, ctx.dilation, chunks)
        return result, None, None


def _box(volumes: torch.Tensor, sizes: tuple[int, ...], radius: int, adjoint: bool) -> None:
    images, (z, y, x) = volumes.shape[0] * volumes.shape[1], sizes
    for outside, size, inside in ((images * z * y, x, 1), (images * z, y, x), (images, z, y * x)):
        # Along an axis of one voxel, whose ends repeat it, the mean changes nothing.
        if size > 1:
            run(loops.box, volumes, outside, size, inside, radius, adjoint)


def _pairs(dims: int, dilation: int) -> torch.Tensor:
    """Offsets (K, 6) along three axes of both neighbours of each pair; in 2D the middle axis stays."""
    found = [[*p, *q] for p, q in neighbour_pairs(dims, dilation)]
    if dims == 2:
        found = [[a, 0, b, c, 0, d] for a, b, c, d in found]
    return torch.tensor(found, dtype=torch.int64)


def _three(image: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the lattice; of a 2D one the middle one is 1."""
    return (image.shape[2], 1, image.shape[3]) if image.ndim == 4 else tuple(image.shape[2:])
