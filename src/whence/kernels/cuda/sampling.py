"""Sampling, warping and composing, with their gradients.

The gradient by an image is scattered: its sums have no fixed order, so that their last bits may vary from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from whence.kernels.cuda import sampling_loops as loops
from whence.kernels.cuda.launch import BLOCK, blocks, run, three

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
        grad, grad_image, grad_coordinates = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            grad_image = torch.zeros_like(image)
            scatter_into(grad_image, grad, coordinates, ctx.flags)
        if ctx.needs_input_grad[1]:
            each = image.new_empty((grad.shape[0], *coordinates.shape[1:]))
            slopes_into(each, grad, image, coordinates, ctx.flags)
            grad_coordinates = each.sum_to_size(coordinates.shape)
        return grad_image, grad_coordinates, None, None


def sample_into(values: torch.Tensor, image: torch.Tensor, coordinates: torch.Tensor, flags: Flags) -> None:
    """Values (B, C, *lattice) of an image at coordinates; flags are (relative, zeros, nearest, add)."""
    relative, zeros, nearest, add = flags
    options = {"RELATIVE": relative, "ZEROS": zeros, "NEAREST": nearest, "ADD": add}
    _run(loops.forward, values, image, coordinates, (image, coordinates, values), options)


def slopes_into(
    grad_coordinates: torch.Tensor, grad: torch.Tensor, image: torch.Tensor, coordinates: torch.Tensor, flags: Flags
) -> None:
    """Write the gradient by the coordinates, of each sample of the batch."""
    relative, zeros, nearest, add = flags
    if nearest:
        grad_coordinates.zero_()
        return
    options = {"RELATIVE": relative, "ZEROS": zeros, "ADD": add}
    _run(loops.slopes, grad, image, coordinates, (image, coordinates, grad, grad_coordinates), options)


def scatter_into(grad_image: torch.Tensor, grad: torch.Tensor, coordinates: torch.Tensor, flags: Flags) -> None:
    """Add the gradient by the image; one that serves the whole batch takes from all of it."""
    relative, zeros, nearest, _ = flags
    options = {"RELATIVE": relative, "ZEROS": zeros, "NEAREST": nearest}
    _run(loops.scatter, grad, grad_image, coordinates, (coordinates, grad, grad_image), options)


def _run(
    kernel: Any,
    output: torch.Tensor,
    image: torch.Tensor,
    coordinates: torch.Tensor,
    tensors: tuple[torch.Tensor, ...],
    options: dict[str, bool],
) -> None:
    """Launch over the output's voxels."""
    shape, (_, rows, columns) = three(image.shape[2:]), three(output.shape[2:])
    count, voxels = output[0, 0].numel(), image[0, 0].numel()
    steps = [0 if t.shape[0] == 1 else t[0].numel() for t in (image, coordinates)]
    many = blocks(count, BLOCK)
    arguments = (*steps, image.shape[1], *shape, voxels, rows, columns, count, many)
    run(kernel, output.shape[0] * many, *tensors, *arguments, DIMS=image.ndim - 2, BLOCK=BLOCK, **options)
