"""The exponential of a velocity by scaling and squaring, with its gradient (scattered, as that of the sampling)."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cuda.sampling import sample_into, scatter_into, slopes_into

# A displacement sampled at itself and added to itself.
_SQUARING = (True, False, False, True)


def exp(velocity: torch.Tensor, steps: int) -> torch.Tensor:
    """As the reference's ``exp``; the squarings are kept only where a gradient is asked for."""
    kept = torch.is_grad_enabled() and velocity.requires_grad
    return _Exp.apply(velocity.contiguous(), steps) if kept else _forward(velocity.contiguous(), steps)[0]


class _Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, velocity: torch.Tensor, steps: int) -> torch.Tensor:
        result, fields = _forward(velocity, steps, keep=True)
        ctx.steps = steps
        ctx.save_for_backward(*fields)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad = grad.contiguous()
        for field in reversed(ctx.saved_tensors):
            total = torch.empty_like(grad)
            slopes_into(total, grad, field, field, _SQUARING)
            scatter_into(total, grad, field, _SQUARING)
            grad = total
        return grad / 2**ctx.steps, None


def _forward(velocity: torch.Tensor, steps: int, keep: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Displacement, and the fields that were squared if they are to be kept."""
    field, fields = velocity.detach() / 2**steps, []
    for _ in range(steps):
        squared = torch.empty_like(field)
        sample_into(squared, field, field, _SQUARING)
        if keep:
            fields.append(field)
        field = squared
    return field, fields
