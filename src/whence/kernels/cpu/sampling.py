"""Sampling, warping and composing, with their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cpu import sampling_loops as loops
from whence.kernels.cpu.launch import run

Flags = tuple[bool, bool, bool, bool]


def sample(image: torch.Tensor, coordinates: torch.Tensor, mode: str, outside: str) -> torch.Tensor:
    """As the reference's ``sample``."""
    dims, out = image.ndim - 2, coordinates.shape[2:]
    # Points in a list form a lattice of one row.
    lattice = tuple(out) if len(out) == dims else (*[1] * (dims - 1), out.numel())
    flags = (False, outside == "zeros", mode == "nearest", False)
    values = _Sample.apply(image.contiguous(), coordinates.contiguous(), lattice, flags)
    return values.reshape(*values.shape[:2], *out)


def warp(image: torch.Tensor, displacement: torch.Tensor, mode: str, outside: str) -> torch.Tensor:
    """As the reference's ``warp``, without a grid of coordinates."""
    flags = (True, outside == "zeros", mode == "nearest", False)
    return _Sample.apply(image.contiguous(), displacement.contiguous(), tuple(displacement.shape[2:]), flags)


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """As the reference's ``compose``, in one pass."""
    return _Sample.apply(second.contiguous(), first.contiguous(), tuple(first.shape[2:]), (True, False, False, True))


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: torch.Tensor,
        coordinates: torch.Tensor,
        lattice: tuple[int, ...],
        flags: Flags,
    ) -> torch.Tensor:
        ctx.save_for_backward(image, coordinates)
        ctx.flags = flags
        batch = max(image.shape[0], coordinates.shape[0])
        values = image.new_empty((batch, image.shape[1], *lattice))
        sample_into(values, image, coordinates, flags)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image, coordinates = ctx.saved_tensors
        batch, (want_image, want_coordinates) = grad.shape[0], ctx.needs_input_grad[:2]
        empty = image.new_empty(0)
        grad_image = image.new_zeros((batch, *image.shape[1:])) if want_image else empty
        grad_coordinates = image.new_zeros((batch, *coordinates.shape[1:])) if want_coordinates else empty
        gradients_into(grad_image, grad_coordinates, grad.contiguous(), image, coordinates, ctx.flags)
        return (
            grad_image.sum_to_size(image.shape) if want_image else None,
            grad_coordinates.sum_to_size(coordinates.shape) if want_coordinates else None,
            None,
            None,
        )


def sample_into(values: torch.Tensor, image: torch.Tensor, coordinates: torch.Tensor, flags: Flags) -> None:
    """Values (B, C, *lattice) of an image at coordinates; flags are (relative, zeros, nearest, add)."""
    dims, batches = image.ndim - 2, (values.shape[0], image.shape[0], coordinates.shape[0])
    shape, out = _three(image.shape[2:]), _three(values.shape[2:])
    run(loops.forward, image, coordinates, values, dims, shape, out, batches, image.shape[1], flags)


def gradients_into(
    grad_image: torch.Tensor,
    grad_coordinates: torch.Tensor,
    grad: torch.Tensor,
    image: torch.Tensor,
    coordinates: torch.Tensor,
    flags: Flags,
) -> None:
    """Add both gradients to their tensors, of which an empty one is left out."""
    dims, batches = image.ndim - 2, (grad.shape[0], image.shape[0], coordinates.shape[0])
    shape, out = _three(image.shape[2:]), _three(grad.shape[2:])
    # Thick slabs, since each task looks through the rows that reach into its own.
    chunks = max(1, min(shape[0] // 4, -(-4 * torch.get_num_threads() // batches[0])))
    shared = grad_image.numel() > 0 and chunks > 1
    touched = torch.empty(2 * batches[2] * out[0] * out[1] if shared else 0, dtype=torch.int32)
    if shared:
        run(loops.reach, coordinates, touched, dims, shape[0], out, batches[2], flags[0])
    arrays = (image, coordinates, grad, grad_image, grad_coordinates, touched)
    run(loops.backward, *arrays, dims, shape, out, batches, image.shape[1], chunks, flags)


def _three(lattice: torch.Size) -> tuple[int, int, int]:
    """A lattice's three sizes; of a 2D one the middle one is 1."""
    return (lattice[0], 1, lattice[1]) if len(lattice) == 2 else (lattice[0], lattice[1], lattice[2])
