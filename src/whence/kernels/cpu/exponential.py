"""The exponential of a velocity by scaling and squaring, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cpu import exp_loops as loops
from whence.kernels.cpu.launch import run
from whence.kernels.cpu.sampling import gradients_into, sample_into

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
        backward = _backward_packed if grad.ndim == 5 else _backward_flat
        return backward(grad.contiguous(), ctx.saved_tensors, ctx.steps), None


def _forward(velocity: torch.Tensor, steps: int, keep: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Displacement, and the fields that were squared if they are to be kept."""
    if velocity.ndim == 4:
        step, fields = velocity / 2**steps, []
        for _ in range(steps):
            fields.append(step)
            step = torch.empty_like(step)
            sample_into(step, fields[-1], fields[-1], _SQUARING)
        return step, fields if keep else []
    batch, lattice = velocity.shape[0], tuple(velocity.shape[2:])
    size = int(np.prod(lattice))
    field, spare = velocity.new_empty((batch, *lattice, 4)), None
    run(loops.pack, velocity.detach(), field, batch, size, np.float32(2.0**-steps))
    fields = []
    for _ in range(steps):
        squared = torch.empty_like(field) if spare is None else spare
        run(loops.square, field, squared, batch, *lattice)
        if keep:
            fields.append(field)
        else:
            spare = field
        field = squared
    result = torch.empty_like(velocity)
    run(loops.unpack, field, result, batch, size, np.float32(1))
    return result, fields


def _backward_flat(grad: torch.Tensor, fields: tuple[torch.Tensor, ...], steps: int) -> torch.Tensor:
    for field in reversed(fields):
        total = torch.zeros_like(grad)
        gradients_into(total, total, grad, field, field, _SQUARING)
        grad = total
    return grad / 2**steps


def _backward_packed(grad: torch.Tensor, fields: tuple[torch.Tensor, ...], steps: int) -> torch.Tensor:
    batch, lattice = grad.shape[0], tuple(grad.shape[2:])
    size = int(np.prod(lattice))
    given, total = grad.new_empty((batch, *lattice, 4)), grad.new_empty((batch, *lattice, 4))
    run(loops.pack, grad, given, batch, size, np.float32(1))
    touched = torch.empty(2 * batch * lattice[0] * lattice[1], dtype=torch.float32)
    chunks = max(1, min(lattice[0] // 4, -(-4 * torch.get_num_threads() // batch)))
    for field in reversed(fields):
        run(loops.reach, field, touched, batch, *lattice)
        run(loops.square_backward, field, given, total, touched, batch, *lattice, chunks)
        given, total = total, given
    result = torch.empty_like(grad)
    run(loops.unpack, given, result, batch, size, np.float32(2.0**-steps))
    return result
