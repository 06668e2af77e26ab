"""Squared local correlation by sums over sliding windows, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cuda import correlation_loops as loops
from whence.kernels.cuda.boxes import CUT, radii
from whence.kernels.cuda.boxes import sheets as summed
from whence.kernels.cuda.launch import LANES, blocks, run, slide, three


def local_correlation(
    a: torch.Tensor, b: torch.Tensor, window: int, epsilon: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """As the reference's ``local_correlation``; the mask has no gradient."""
    weight = None if mask is None else mask.to(a.dtype).expand(a.shape[0], 1, *a.shape[2:]).contiguous()
    return _Correlation.apply(a.contiguous(), b.contiguous(), weight, window // 2, float(epsilon))


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None, radius: int, epsilon: float
    ) -> torch.Tensor:
        # The correlation does not see a shift, but the precision of its sums does.
        shifts = torch.stack([i.flatten(2).mean(dim=2) for i in (a, b)], dim=-1)
        ctx.save_for_backward(a, b, weight, shifts)
        ctx.radius, ctx.epsilon = radius, epsilon
        result = torch.empty_like(a)
        _correlate(a, b, weight, shifts, a, result, 1, radius, epsilon)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b, weight, shifts = ctx.saved_tensors
        want_a, want_b = ctx.needs_input_grad[:2]
        if not want_a:
            # The measure is symmetric: its second gradient is the first of the images exchanged.
            a, b, shifts = b, a, shifts.flip(-1).contiguous()
        count, radius, sizes = 5 if want_a and want_b else 3, ctx.radius, three(a.shape[2:])
        fields = a.new_empty((*a.shape[:2], count, *a.shape[2:]))
        _correlate(a, b, weight, shifts, grad.contiguous(), fields, count, radius, ctx.epsilon)
        sums = torch.empty_like(fields, dtype=torch.float64)
        summed(fields, sums, sizes, radius, CUT)
        del fields
        first = torch.empty_like(a)
        second = torch.empty_like(b) if count == 5 else first
        masked, voxels, chunk = weight is not None, a[0, 0].numel(), slide(radius)
        many = blocks(sizes[1] * sizes[2], LANES)
        programs = a.shape[0] * a.shape[1] * blocks(sizes[0], chunk) * many
        arrays = (sums, a, b, weight if masked else a, shifts, first, second)
        numbers = (a.shape[1], *sizes, voxels, radius, chunk, many)
        run(loops.gather, programs, *arrays, *numbers, warps=LANES // 32, MASKED=masked, FIELDS=count, LANES=LANES)
        return first if want_a else None, (second if want_a else first) if want_b else None, None, None, None


def _correlate(
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor | None,
    shifts: torch.Tensor,
    grad: torch.Tensor,
    result: torch.Tensor,
    fields: int,
    radius: int,
    epsilon: float,
) -> None:
    """Write the squared correlations (one field), or what gradients are made of (three or five)."""
    sizes, masked, images = three(a.shape[2:]), weight is not None, a.shape[0] * a.shape[1]
    features, voxels, radius_y = 6 if masked else 5, a[0, 0].numel(), radii(sizes, radius)[1]
    z, y, x = sizes
    sums = a.new_empty((images, features, voxels), dtype=torch.float64)
    chunk, many = slide(radius_y), blocks(x, LANES)
    arrays = (a, b, weight if masked else a, shifts, sums)
    numbers = (a.shape[1], *sizes, voxels, radius, radius_y, chunk, many)
    options = {"FEATURES": features, "LANES": LANES, "warps": LANES // 32}
    run(loops.sheets, images * z * blocks(y, chunk) * many, *arrays, *numbers, MASKED=masked, **options)
    chunk, many = slide(radius), blocks(y * x, LANES)
    numbers = (*sizes, voxels, radius, epsilon * epsilon, chunk, many)
    run(loops.correlate, images * blocks(z, chunk) * many, sums, grad, result, *numbers, FIELDS=fields, **options)
