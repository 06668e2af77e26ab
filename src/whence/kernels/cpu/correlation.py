"""Squared local correlation by sliding sums, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cpu import correlation_loops as loops
from whence.kernels.cpu.launch import run


def local_correlation(
    a: torch.Tensor, b: torch.Tensor, window: int, epsilon: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """As the reference's ``local_correlation``; the mask has no gradient."""
    weight = a.new_empty(0) if mask is None else mask.to(a.dtype).expand(a.shape[0], 1, *a.shape[2:]).contiguous()
    return _Correlation.apply(a.contiguous(), b.contiguous(), weight, window // 2, epsilon)


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, radius: int, epsilon: float
    ) -> torch.Tensor:
        # The correlation does not see a shift, but the precision of its sums does.
        shifts = torch.stack([i.detach().flatten(2).mean(dim=2, dtype=torch.float64) for i in (a, b)], dim=-1)
        shifts = shifts.contiguous()
        ctx.save_for_backward(a, b, weight, shifts)
        ctx.radius, ctx.epsilon = radius, epsilon
        result, chunks, count = torch.empty_like(a), _chunks(a), 5 if all(ctx.needs_input_grad[:2]) else 3
        sizes = (*a.shape[:2], *_three(a))
        # What gradients are made of costs little on the way, if every voxel's correlation will weigh the same.
        swap = ctx.needs_input_grad[1] and not ctx.needs_input_grad[0]
        first, second, shift = (b, a, shifts.flip(-1).contiguous()) if swap else (a, b, shifts)
        fields = a.new_empty((*a.shape[:2], count, *a.shape[2:]) if any(ctx.needs_input_grad[:2]) else 0)
        empty = a.new_empty(0)
        arrays = (first, second, weight, shift, empty, result, fields)
        run(loops.correlate, *arrays, *sizes, radius, epsilon, chunks, count)
        ctx.fields = fields
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b, weight, shifts = ctx.saved_tensors
        want_a, want_b = ctx.needs_input_grad[:2]
        if not want_a:
            # The measure is symmetric: its second gradient is the first of the images exchanged.
            a, b, shifts = b, a, shifts.flip(-1).contiguous()
        count, chunks, radius = 5 if want_a and want_b else 3, _chunks(a), ctx.radius
        sizes = (*a.shape[:2], *_three(a))
        arrays = (a, b, weight, shifts)
        share, fields = 1.0, ctx.fields
        if not any(grad.stride()):
            share = float(grad.flatten()[0])
        else:
            # Those of the forward pass stay: the graph may be gone through again.
            fields = torch.empty_like(fields)
            run(loops.correlate, *arrays, grad.contiguous(), a.new_empty(0), fields, *sizes, radius, ctx.epsilon,
                chunks, count)  # fmt: skip
        first = torch.empty_like(a)
        second = torch.empty_like(b) if count == 5 else a.new_empty(0)
        run(loops.gather, *arrays, fields, first, second, *sizes, radius, chunks, count, share)
        return (first if want_a else None, (second if want_a else first) if want_b else None, None, None, None)


def _chunks(image: torch.Tensor) -> int:
    """Slabs of an image: as few as keep all threads at work, since each begins with a window's sums."""
    images = image.shape[0] * image.shape[1]
    return max(1, min(image.shape[2] // 4, -(-2 * torch.get_num_threads() // images)))


def _three(image: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the lattice; of a 2D one the middle one is 1."""
    return (image.shape[2], 1, image.shape[3]) if image.ndim == 4 else tuple(image.shape[2:])
