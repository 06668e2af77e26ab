"""The joint histogram with a cubic Parzen window, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch.autograd.function import once_differentiable

from whence.kernels.cpu.launch import inner, outer, run

F = np.float32
U = np.uintp
ZERO, ONE = F(0), F(1)
# Samples of one partial histogram, which are added up in a fixed order whatever the threads.
SHARE = 1 << 16
# Samples that are counted in float32 before they join the rest.
RUN = 1 << 12


def joint_histogram(a: torch.Tensor, b: torch.Tensor, bins: int, mask: torch.Tensor | None) -> torch.Tensor:
    """As the reference's ``joint_histogram``; the mask has no gradient."""
    if mask is None:
        weight, total = a.new_empty(0), a.new_full((a.shape[0],), a[0].numel())
    else:
        weight = mask.to(a.dtype).expand(a.shape[0], 1, *a.shape[2:]).contiguous()
        total = (weight.flatten(1).sum(dim=1, dtype=torch.float64) * a.shape[1]).float()
    total = total.clamp_min(torch.finfo(a.dtype).tiny)
    return _Histogram.apply(a.contiguous(), b.contiguous(), weight, total, bins)


class _Histogram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, total: torch.Tensor, bins: int
    ) -> torch.Tensor:
        ctx.save_for_backward(a, b, weight, total)
        ctx.bins = bins
        batch, count = a.shape[0], a[0].numel()
        shares = min(64, -(-count // SHARE))
        partial = a.new_zeros((batch, shares, bins, bins), dtype=torch.float64)
        run(_forward, a, b, weight, partial, batch, count, a[0, 0].numel(), shares, bins)
        return (partial.sum(dim=1) / total[:, None, None]).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b, weight, total = ctx.saved_tensors
        empty = a.new_empty(0)
        grad_a = torch.empty_like(a) if ctx.needs_input_grad[0] else empty
        grad_b = torch.empty_like(b) if ctx.needs_input_grad[1] else empty
        batch, count = a.shape[0], a[0].numel()
        slope = (grad / total[:, None, None]).contiguous()
        run(_backward, a, b, weight, slope, grad_a, grad_b, batch, count, a[0, 0].numel(), ctx.bins)
        return grad_a if grad_a.numel() else None, grad_b if grad_b.numel() else None, None, None, None


@inner
def _place(value, bins):
    """First bin of the window of four that a value falls into, and how far it lies into it; NaN for NaN."""
    position = min(max(value, ZERO), ONE) * F(bins - 3) + ONE if value == value else value
    first = int(position) if position == position else 1
    first = first if first < bins - 3 else bins - 3
    return first - 1, position - F(first)


@inner
def _window(t):
    """Weights of a cubic B-spline on its four bins."""
    s, six = ONE - t, F(1 / 6)
    return (
        s * s * s * six,
        ((F(3) * t - F(6)) * t * t + F(4)) * six,
        ((F(3) * s - F(6)) * s * s + F(4)) * six,
        t * t * t * six,
    )


@inner
def _window_slope(t):
    s, half = ONE - t, F(0.5)
    return -half * s * s, (F(1.5) * t - F(2)) * t, (F(2) - F(1.5) * s) * s, half * t * t


@outer
def _forward(a, b, weight, partial, batch, count, voxels, shares, bins):
    for unit in prange(batch * shares):
        sample, share = unit // shares, unit % shares
        total = partial[U(unit * bins * bins) : U((unit + 1) * bins * bins)]
        histogram = np.zeros(bins * bins, F)
        end = (share + 1) * count // shares
        for begin in range(share * count // shares, end, RUN):
            for i in range(begin, min(begin + RUN, end)):
                w = weight[U(sample * voxels + i % voxels)] if weight.size > 0 else ONE
                if w == ZERO:
                    continue
                row, t = _place(a[U(sample * count + i)], bins)
                column, s = _place(b[U(sample * count + i)], bins)
                w0, w1, w2, w3 = _window(t)
                v0, v1, v2, v3 = _window(s)
                at = row * bins + column
                for v, step in ((w0 * w, 0), (w1 * w, bins), (w2 * w, 2 * bins), (w3 * w, 3 * bins)):
                    # Read before any is written: four neighbours are one vector then.
                    h0, h1 = histogram[U(at + step)], histogram[U(at + step + 1)]
                    h2, h3 = histogram[U(at + step + 2)], histogram[U(at + step + 3)]
                    histogram[U(at + step)] = h0 + v * v0
                    histogram[U(at + step + 1)] = h1 + v * v1
                    histogram[U(at + step + 2)] = h2 + v * v2
                    histogram[U(at + step + 3)] = h3 + v * v3
            for k in range(bins * bins):
                total[k] += histogram[k]
                histogram[k] = ZERO


@outer
def _backward(a, b, weight, slope, grad_a, grad_b, batch, count, voxels, bins):
    rows = max(1, count // 4096)
    for unit in prange(batch * rows):
        sample, part = unit // rows, unit % rows
        table = slope[U(sample * bins * bins) :]
        low, high = part * count // rows, (part + 1) * count // rows
        if grad_a.size > 0:
            _slopes(a, b, weight, table, grad_a, sample, low, high, count, voxels, bins, bins, 1)
        if grad_b.size > 0:
            _slopes(b, a, weight, table, grad_b, sample, low, high, count, voxels, bins, 1, bins)


@inner
def _slopes(a, b, weight, table, grad, sample, low, high, count, voxels, bins, along, across):
    """Gradient of image a, whose bins lie ``along`` apart in the table; those of b lie ``across`` apart."""
    for i in range(low, high):
        o = sample * count + i
        w = weight[U(sample * voxels + i % voxels)] if weight.size > 0 else ONE
        value = a[U(o)]
        # Beyond the range the value is clamped, and has no slope.
        if w == ZERO or not ZERO <= value <= ONE:
            grad[U(o)] = ZERO
            continue
        row, t = _place(value, bins)
        column, s = _place(b[U(o)], bins)
        v0, v1, v2, v3 = _window(s)
        d0, d1, d2, d3 = _window_slope(t)
        at, total = row * along + column * across, ZERO
        for d, step in ((d0, 0), (d1, along), (d2, 2 * along), (d3, 3 * along)):
            g0, g1 = table[U(at + step)], table[U(at + step + across)]
            g2, g3 = table[U(at + step + 2 * across)], table[U(at + step + 3 * across)]
            total += d * (g0 * v0 + g1 * v1 + g2 * v2 + g3 * v3)
        grad[U(o)] = total * w * F(bins - 3)
