"""The joint histogram with a cubic Parzen window, with its gradient.

Samples are scattered into many partial histograms, so that few meet in a bin; their order is not fixed, and the last
bits may vary from run to run. The gradient is gathered.
"""

# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from whence.kernels.cuda.launch import BLOCK, blocks, run

SIZES = ["C", "bins", "shares", "blocks"]
# Floats of all partial histograms together.
ROOM = 1 << 22


def joint_histogram(a: torch.Tensor, b: torch.Tensor, bins: int, mask: torch.Tensor | None) -> torch.Tensor:
    """As the reference's ``joint_histogram``; the mask has no gradient."""
    if mask is None:
        weight, total = None, a.new_full((a.shape[0],), a[0].numel())
    else:
        weight = mask.to(a.dtype).expand(a.shape[0], 1, *a.shape[2:]).contiguous()
        total = (weight.flatten(1).sum(dim=1, dtype=torch.float64) * a.shape[1]).float()
        a, b = (image.masked_fill(weight == 0, 0) for image in (a, b))
    total = total.clamp_min(torch.finfo(a.dtype).tiny)
    return _Histogram.apply(a.contiguous(), b.contiguous(), weight, total, bins)


class _Histogram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None, total: torch.Tensor, bins: int
    ) -> torch.Tensor:
        ctx.save_for_backward(a, b, weight, total)
        ctx.bins = bins
        batch, programs = a.shape[0], a.shape[1] * blocks(a[0, 0].numel(), BLOCK)
        shares = max(1, min(1024, programs, ROOM // (batch * bins * bins)))
        partial = a.new_zeros((batch, shares, bins, bins))
        _run(_forward, a, b, weight, (partial,), shares, bins)
        return (partial.sum(dim=1, dtype=torch.float64) / total[:, None, None]).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b, weight, total = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        grads = [torch.empty_like(i) if want else None for i, want in zip((a, b), wanted, strict=True)]
        slope = (grad / total[:, None, None]).contiguous()
        # What is not wanted is not written: any tensor stands for it.
        places = [slope if g is None else g for g in grads]
        _run(_backward, a, b, weight, (slope, *places), 1, ctx.bins, FOR_A=wanted[0], FOR_B=wanted[1])
        return *grads, None, None, None


def _run(
    kernel: Any,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor | None,
    tensors: tuple[torch.Tensor, ...],
    shares: int,
    bins: int,
    **options: bool,
) -> None:
    """Launch over the samples of all channels."""
    count = a[0, 0].numel()
    many = blocks(count, BLOCK)
    masked = weight is not None
    arguments = (a, b, weight if masked else a, *tensors, a.shape[1], count, bins, shares, many)
    run(kernel, a.shape[0] * a.shape[1] * many, *arguments, MASKED=masked, BLOCK=BLOCK, **options)


@triton.jit
def _place(value, bins):
    """First bin of the window of four that a value falls into, and how far it lies into it; NaN for NaN."""
    position = tl.where(value > 0, value, 0.0)
    position = tl.where(position < 1, position, 1.0) * (bins - 3) + 1
    first = tl.minimum(position.to(tl.int32), bins - 3)
    return first - 1, tl.where(value == value, position - first, value)


@triton.jit
def _window(t):
    """Weights of a cubic B-spline on its four bins."""
    s = 1 - t
    w1 = ((3 * t - 6) * t * t + 4) * (1 / 6)
    w2 = ((3 * s - 6) * s * s + 4) * (1 / 6)
    return s * s * s * (1 / 6), w1, w2, t * t * t * (1 / 6)


@triton.jit
def _window_slope(t):
    s = 1 - t
    return -0.5 * s * s, (1.5 * t - 2) * t, (2 - 1.5 * s) * s, 0.5 * t * t


@triton.jit
def _add_row(row, w, v0, v1, v2, v3, mask):
    tl.atomic_add(row, w * v0, mask=mask, sem="relaxed")
    tl.atomic_add(row + 1, w * v1, mask=mask, sem="relaxed")
    tl.atomic_add(row + 2, w * v2, mask=mask, sem="relaxed")
    tl.atomic_add(row + 3, w * v3, mask=mask, sem="relaxed")


@triton.jit
def _sum_row(row, v0, v1, v2, v3, e0, e1, e2, e3, mask):
    """A row of the gradient's table, weighted by the window and by its slope."""
    g0 = tl.load(row, mask=mask, other=0.0)
    g1 = tl.load(row + 1, mask=mask, other=0.0)
    g2 = tl.load(row + 2, mask=mask, other=0.0)
    g3 = tl.load(row + 3, mask=mask, other=0.0)
    return g0 * v0 + g1 * v1 + g2 * v2 + g3 * v3, g0 * e0 + g1 * e1 + g2 * e2 + g3 * e3


@triton.jit(do_not_specialize=SIZES)
def _forward(
    a, b, weight, partial, C, N, bins, shares, blocks, MASKED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    unit = tl.program_id(0)
    image = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < N
    p = tl.load(a + image * N + i, mask=mask, other=0.0)
    q = tl.load(b + image * N + i, mask=mask, other=0.0)
    row, t = _place(p, bins)
    column, s = _place(q, bins)
    w0, w1, w2, w3 = _window(t)
    v0, v1, v2, v3 = _window(s)
    if MASKED:
        w = tl.load(weight + image // C * N + i, mask=mask, other=0.0)
        w0, w1, w2, w3 = w * w0, w * w1, w * w2, w * w3
        # What weighs nothing adds nothing, unless it is unknown.
        mask &= (w != 0) | (p != p) | (q != q)
    at = partial + (image // C * shares + unit % shares) * bins * bins + row * bins + column
    _add_row(at, w0, v0, v1, v2, v3, mask)
    _add_row(at + bins, w1, v0, v1, v2, v3, mask)
    _add_row(at + 2 * bins, w2, v0, v1, v2, v3, mask)
    _add_row(at + 3 * bins, w3, v0, v1, v2, v3, mask)


@triton.jit(do_not_specialize=SIZES)
def _backward(
    a, b, weight, slope, grad_a, grad_b, C, N, bins, shares, blocks,
    MASKED: tl.constexpr, FOR_A: tl.constexpr, FOR_B: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0)
    image = (unit // blocks).to(tl.int64)
    i = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < N
    p = tl.load(a + image * N + i, mask=mask, other=0.0)
    q = tl.load(b + image * N + i, mask=mask, other=0.0)
    row, t = _place(p, bins)
    column, s = _place(q, bins)
    w0, w1, w2, w3 = _window(t)
    d0, d1, d2, d3 = _window_slope(t)
    v0, v1, v2, v3 = _window(s)
    e0, e1, e2, e3 = _window_slope(s)
    at = slope + image // C * bins * bins + row * bins + column
    a0, b0 = _sum_row(at, v0, v1, v2, v3, e0, e1, e2, e3, mask)
    a1, b1 = _sum_row(at + bins, v0, v1, v2, v3, e0, e1, e2, e3, mask)
    a2, b2 = _sum_row(at + 2 * bins, v0, v1, v2, v3, e0, e1, e2, e3, mask)
    a3, b3 = _sum_row(at + 3 * bins, v0, v1, v2, v3, e0, e1, e2, e3, mask)
    w = tl.full((BLOCK,), 1.0, tl.float32) * (bins - 3)
    if MASKED:
        w *= tl.load(weight + image // C * N + i, mask=mask, other=0.0)
    # Beyond the range the value is clamped, and has no slope.
    if FOR_A:
        value = tl.where((p >= 0) & (p <= 1), w * (d0 * a0 + d1 * a1 + d2 * a2 + d3 * a3), 0.0)
        tl.store(grad_a + image * N + i, value, mask=mask)
    if FOR_B:
        value = tl.where((q >= 0) & (q <= 1), w * (w0 * b0 + w1 * b1 + w2 * b2 + w3 * b3), 0.0)
        tl.store(grad_b + image * N + i, value, mask=mask)
