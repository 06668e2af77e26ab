"""MIND-SSC descriptors by sums over sliding windows, with their gradient.

The gradient by the image is scattered: its sums have no fixed order, so that their last bits may vary from run to run.
"""

# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from whence.kernels.cuda.boxes import means
from whence.kernels.cuda.launch import BLOCK, blocks, run, three
from whence.kernels.reference.mind import neighbour_pairs

SIZES = ["K", "Z", "Y", "X", "blocks"]


def mind_descriptor(image: torch.Tensor, radius: int, dilation: int) -> torch.Tensor:
    """As the reference's ``mind_descriptor``."""
    return _Descriptor.apply(image.contiguous(), radius, dilation)


class _Descriptor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, radius: int, dilation: int) -> torch.Tensor:
        pairs, sizes = _pairs(image, dilation), three(image.shape[2:])
        batch, count, voxels = image.shape[0], pairs.shape[0], image[0].numel()
        many = blocks(voxels, BLOCK)
        descriptor = image.new_empty((batch, count, *image.shape[2:]))
        arrays = (image, descriptor, pairs)
        run(_differences, batch * count * many, *arrays, count, *sizes, voxels, many, BLOCK=BLOCK)
        means(descriptor, sizes, radius, adjoint=False)
        variance = torch.empty_like(image)
        run(_variance, batch * many, descriptor, variance, count, voxels, many, BLOCK=BLOCK)
        typical = variance.flatten(1).mean(dim=1, dtype=torch.float64).float()
        # Heinrich's bounds keep flat regions from blowing up the exponent.
        bounds = torch.stack([typical * 1e-3, typical * 1e3], dim=1)
        run(_exponentials, batch * many, descriptor, variance, bounds, count, voxels, many, BLOCK=BLOCK)
        ctx.save_for_backward(image, descriptor, variance, bounds, pairs)
        ctx.radius = radius
        return descriptor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image, descriptor, variance, bounds, pairs = ctx.saved_tensors
        sizes, batch, count, voxels = three(image.shape[2:]), image.shape[0], pairs.shape[0], image[0].numel()
        many, slope = blocks(voxels, BLOCK), torch.empty_like(descriptor)
        arrays = (descriptor, grad.contiguous(), slope, variance, bounds)
        run(_slopes, batch * many, *arrays, count, voxels, many, BLOCK=BLOCK)
        means(slope, sizes, ctx.radius, adjoint=True)
        result = torch.zeros_like(image)
        arrays = (image, slope, result, pairs)
        run(_collect, batch * count * many, *arrays, count, *sizes, voxels, many, BLOCK=BLOCK)
        return result, None, None


def _pairs(image: torch.Tensor, dilation: int) -> torch.Tensor:
    """Offsets (K, 6) along three axes of both neighbours of each pair; in 2D the middle axis stays."""
    found = [[*p, *q] for p, q in neighbour_pairs(image.ndim - 2, dilation)]
    if image.ndim == 4:
        found = [[a, 0, b, c, 0, d] for a, b, c, d in found]
    return torch.tensor(found, dtype=torch.int32, device=image.device)


@triton.jit
def _clamp(i, n):
    return tl.minimum(tl.maximum(i, 0), n - 1)


@triton.jit
def _neighbours(pair, i, Z, Y, X):
    """Where both neighbours of a pair lie, the image's last voxel repeated beyond its ends."""
    z, y, x = i // X // Y, i // X % Y, i % X
    p = (_clamp(z + tl.load(pair), Z) * Y + _clamp(y + tl.load(pair + 1), Y)) * X + _clamp(x + tl.load(pair + 2), X)
    q = (_clamp(z + tl.load(pair + 3), Z) * Y + _clamp(y + tl.load(pair + 4), Y)) * X + _clamp(x + tl.load(pair + 5), X)
    return p, q


@triton.jit(do_not_specialize=SIZES)
def _differences(image, distances, pairs, K, Z, Y, X, N, blocks, BLOCK: tl.constexpr):
    """Squared differences of the two neighbours of each pair."""
    unit = tl.program_id(0)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    volume = (unit // blocks).to(tl.int64)
    mask = i < N
    p, q = _neighbours(pairs + 6 * (unit // blocks % K), i, Z, Y, X)
    picture = image + volume // K * N
    d = tl.load(picture + p, mask=mask, other=0.0) - tl.load(picture + q, mask=mask, other=0.0)
    tl.store(distances + volume * N + i, d * d, mask=mask)


@triton.jit
def _least(at, K, N, mask, BLOCK: tl.constexpr):
    """Least of K distances, and their mean excess over it."""
    least = tl.full((BLOCK,), float("inf"), tl.float32)
    place = at
    for _ in range(K):
        least = tl.minimum(least, tl.load(place, mask=mask, other=0.0))
        place += N
    excess = tl.zeros((BLOCK,), tl.float32)
    place = at
    for _ in range(K):
        excess += tl.load(place, mask=mask, other=0.0) - least
        place += N
    return least, excess / K


@triton.jit(do_not_specialize=SIZES)
def _variance(distances, variance, K, N, blocks, BLOCK: tl.constexpr):
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < N
    _, mean = _least(distances + b * K * N + i, K, N, mask, BLOCK)
    tl.store(variance + b * N + i, mean, mask=mask)


@triton.jit
def _bounded(value, low, high):
    return tl.maximum(tl.minimum(tl.maximum(value, low), high), 1e-12)


@triton.jit(do_not_specialize=SIZES)
def _exponentials(distances, variance, bounds, K, N, blocks, BLOCK: tl.constexpr):
    """Descriptors in place of the distances."""
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < N
    at = distances + b * K * N + i
    least, _ = _least(at, K, N, mask, BLOCK)
    raw = tl.load(variance + b * N + i, mask=mask, other=1.0)
    scale = _bounded(raw, tl.load(bounds + 2 * b), tl.load(bounds + 2 * b + 1))
    for _ in range(K):
        excess = tl.load(at, mask=mask, other=0.0) - least
        tl.store(at, tl.exp(-excess / scale), mask=mask)
        at += N


@triton.jit(do_not_specialize=SIZES)
def _slopes(descriptor, grad, slope, variance, bounds, K, N, blocks, BLOCK: tl.constexpr):
    """Gradient by the distances. A distance is its excess over the least, whose own gradient takes from all."""
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < N
    low, high = tl.load(bounds + 2 * b), tl.load(bounds + 2 * b + 1)
    raw = tl.load(variance + b * N + i, mask=mask, other=1.0)
    scale = _bounded(raw, low, high)
    place, given = descriptor + b * K * N + i, grad + b * K * N + i
    moved = tl.zeros((BLOCK,), tl.float32)
    direct = tl.zeros((BLOCK,), tl.float32)
    best = tl.full((BLOCK,), -1.0, tl.float32)
    for _ in range(K):
        y = tl.load(place, mask=mask, other=0.0)
        gy = tl.load(given, mask=mask, other=0.0) * y
        # -y log y is y times the excess over the variance; it ends with the smallest y that there are.
        moved -= tl.where(y > 0, gy * tl.log(tl.where(y > 0, y, 1.0)), 0.0)
        direct += gy
        best = tl.maximum(best, y)
        place += N
        given += N
    free = (low <= raw) & (raw <= high) & (raw >= 1e-12)
    shared = tl.where(free, moved / (K * scale), 0.0)
    total = K * shared - direct / scale
    place, given, result = descriptor + b * K * N + i, grad + b * K * N + i, slope + b * K * N + i
    found = tl.zeros((BLOCK,), tl.int32)
    for _ in range(K):
        y = tl.load(place, mask=mask, other=0.0)
        value = shared - tl.load(given, mask=mask, other=0.0) * y / scale
        nearest = (y == best) & (found == 0)
        tl.store(result, tl.where(nearest, value - total, value), mask=mask)
        found += nearest.to(tl.int32)
        place += N
        given += N
        result += N


@triton.jit(do_not_specialize=SIZES)
def _collect(image, slope, grad, pairs, K, Z, Y, X, N, blocks, BLOCK: tl.constexpr):
    """Add the gradient by the image from that by the squared differences, in no fixed order."""
    unit = tl.program_id(0)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    volume = (unit // blocks).to(tl.int64)
    mask = i < N
    p, q = _neighbours(pairs + 6 * (unit // blocks % K), i, Z, Y, X)
    picture, result = image + volume // K * N, grad + volume // K * N
    d = tl.load(picture + p, mask=mask, other=0.0) - tl.load(picture + q, mask=mask, other=0.0)
    g = 2 * d * tl.load(slope + volume * N + i, mask=mask, other=0.0)
    tl.atomic_add(result + p, g, mask=mask, sem="relaxed")
    tl.atomic_add(result + q, -g, mask=mask, sem="relaxed")
