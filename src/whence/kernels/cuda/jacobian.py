"""The Jacobian determinant, with its gradient, which each voxel gathers from its neighbours."""

# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from whence.kernels.cuda.launch import BLOCK, blocks, run, three

SIZES = ["Z", "Y", "X", "blocks"]


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """As the reference's ``jacobian_determinant``."""
    return _Determinant.apply(displacement.contiguous())


class _Determinant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        result = u.new_empty((u.shape[0], 1, *u.shape[2:]))
        _run(_forward, u, (u, result))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        result = torch.empty_like(u)
        _run(_backward, u, (u, grad.contiguous(), result))
        return result


def _run(kernel: Any, u: torch.Tensor, tensors: tuple[torch.Tensor, ...]) -> None:
    count = u[0, 0].numel()
    many = blocks(count, BLOCK)
    run(kernel, u.shape[0] * many, *tensors, *three(u.shape[2:]), count, many, DIMS=u.shape[1], BLOCK=BLOCK)


@triton.jit
def _step(i, n):
    """Inverse of the distance that the slope at voxel i of n is taken over; 0 on an axis of one voxel."""
    return tl.where((i > 0) & (i < n - 1), 0.5, tl.where(n > 1, 1.0, 0.0))


@triton.jit
def _slope(u, i, n, stride, step, mask):
    """Derivative of one component along an axis; ``u`` points at the voxels."""
    above = tl.load(u + tl.where(i < n - 1, stride, 0), mask=mask, other=0.0)
    below = tl.load(u - tl.where(i > 0, stride, 0), mask=mask, other=0.0)
    return tl.where(step > 0, (above - below) * step, 0.0)


@triton.jit
def _column(u, i, n, stride, N, mask, AXIS: tl.constexpr, DIMS: tl.constexpr):
    """Derivatives of phi's components along an axis; the middle component stays put in 2D."""
    step = _step(i, n)
    first = _slope(u, i, n, stride, step, mask)
    last = _slope(u + (DIMS - 1) * N, i, n, stride, step, mask)
    middle = first * 0
    if DIMS == 3:
        middle = _slope(u + N, i, n, stride, step, mask)
    if AXIS == 0:
        first += 1
    if AXIS == 1:
        middle += 1
    if AXIS == 2:
        last += 1
    return first, middle, last


@triton.jit
def _cross(a0, a1, a2, b0, b1, b2):
    return a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0


@triton.jit(do_not_specialize=SIZES)
def _forward(u, result, Z, Y, X, N, blocks, DIMS: tl.constexpr, BLOCK: tl.constexpr):
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    z, y, x = i // X // Y, i // X % Y, i % X
    at = u + b * DIMS * N + i
    a, d, g = _column(at, z, Z, Y * X, N, inside, 0, DIMS)
    c, f, k = _column(at, x, X, 1, N, inside, 2, DIMS)
    if DIMS == 3:
        b_, e, h = _column(at, y, Y, X, N, inside, 1, DIMS)
        value = a * (e * k - f * h) - b_ * (d * k - f * g) + c * (d * h - e * g)
    else:
        value = a * k - c * g
    tl.store(result + b * N + i, value, mask=inside)


@triton.jit
def _cofactors(at, z, y, x, Z, Y, X, N, mask, AXIS: tl.constexpr, DIMS: tl.constexpr):
    """The determinant's derivatives by the Jacobian's column of an axis: the cross product of the other two."""
    if DIMS == 2:
        if AXIS == 0:
            c0, _, c2 = _column(at, x, X, 1, N, mask, 2, DIMS)
            return c2, c0, -c0
        c0, _, c2 = _column(at, z, Z, X, N, mask, 0, DIMS)
        return -c2, c0, c0
    if AXIS == 0:
        b0, b1, b2 = _column(at, y, Y, X, N, mask, 1, DIMS)
        c0, c1, c2 = _column(at, x, X, 1, N, mask, 2, DIMS)
        return _cross(b0, b1, b2, c0, c1, c2)
    a0, a1, a2 = _column(at, z, Z, Y * X, N, mask, 0, DIMS)
    if AXIS == 1:
        c0, c1, c2 = _column(at, x, X, 1, N, mask, 2, DIMS)
        return _cross(c0, c1, c2, a0, a1, a2)
    b0, b1, b2 = _column(at, y, Y, X, N, mask, 1, DIMS)
    return _cross(a0, a1, a2, b0, b1, b2)


@triton.jit
def _taken(at, given, z, y, x, Z, Y, X, N, shift, inside, AXIS: tl.constexpr, DIMS: tl.constexpr):
    """What voxels take from the slopes along an axis at the voxels ``shift`` further, in which they stand."""
    if AXIS == 0:
        i, n, stride = z + shift, Z, Y * X
        z = i
    if AXIS == 1:
        i, n, stride = y + shift, Y, X
        y = i
    if AXIS == 2:
        i, n, stride = x + shift, X, 1
        x = i
    step = _step(i, n)
    # A voxel adds to the slope before it and takes from the one behind it; to its own it comes at an end only.
    sign = -shift + tl.where((shift == 0) & (i == n - 1), 1, 0) - tl.where((shift == 0) & (i == 0), 1, 0)
    mask = inside & (i >= 0) & (i < n) & (sign != 0) & (step > 0)
    g = tl.load(given + shift * stride, mask=mask, other=0.0) * step * sign
    c0, c1, c2 = _cofactors(at + shift * stride, z, y, x, Z, Y, X, N, mask, AXIS, DIMS)
    return tl.where(mask, g * c0, 0.0), tl.where(mask, g * c1, 0.0), tl.where(mask, g * c2, 0.0)


@triton.jit(do_not_specialize=SIZES)
def _backward(u, grad, result, Z, Y, X, N, blocks, DIMS: tl.constexpr, BLOCK: tl.constexpr):
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    z, y, x = i // X // Y, i // X % Y, i % X
    at, given = u + b * DIMS * N + i, grad + b * N + i
    first = tl.zeros((BLOCK,), tl.float32)
    middle = tl.zeros((BLOCK,), tl.float32)
    last = tl.zeros((BLOCK,), tl.float32)
    for shift in range(-1, 2):
        t0, t1, t2 = _taken(at, given, z, y, x, Z, Y, X, N, shift, inside, 0, DIMS)
        first, middle, last = first + t0, middle + t1, last + t2
        if DIMS == 3:
            t0, t1, t2 = _taken(at, given, z, y, x, Z, Y, X, N, shift, inside, 1, DIMS)
            first, middle, last = first + t0, middle + t1, last + t2
        t0, t1, t2 = _taken(at, given, z, y, x, Z, Y, X, N, shift, inside, 2, DIMS)
        first, middle, last = first + t0, middle + t1, last + t2
    place = result + b * DIMS * N + i
    tl.store(place, first, mask=inside)
    tl.store(place + (DIMS - 1) * N, last, mask=inside)
    if DIMS == 3:
        tl.store(place + N, middle, mask=inside)
