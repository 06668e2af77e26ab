"""A step of gradient descent on a field: what pulls a voxel, and how far it goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def image_force(image: torch.Tensor, slope: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    """Sum over channels of ``slope`` times the image's gradient times ``scale``, one a axis: (B, D, *spatial).

    Image and slope are (B, C, *spatial); the gradient is a central difference per voxel, 0 at the border.
    """
    dims = image.ndim - 2
    result = image.new_zeros((image.shape[0], dims, *image.shape[2:]))
    for axis in range(dims):
        size = image.shape[axis + 2]
        if size < 3:
            continue
        rise = image.narrow(axis + 2, 2, size - 2) - image.narrow(axis + 2, 0, size - 2)
        pulled = (rise * slope.narrow(axis + 2, 1, size - 2)).sum(dim=1)
        result[:, axis].narrow(axis + 1, 1, size - 2).copy_(pulled * (0.5 * scale[axis]))
    return result


def moment_step(
    force: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rates: tuple[float, float],
    corrections: tuple[float, float],
    floor: float,
    scale: Sequence[float],
) -> torch.Tensor:
    """Update the moments of a force (B, D, *spatial) in place and return the step, of the same shape.

    ``first`` is the mean of the force, ``second`` (B, 1, *spatial) that of its squared length over D; both move
    towards what is new by ``rates``. The step is first / (root of second + floor), after each moment is
    multiplied by its correction, times ``scale``, one a axis.
    """
    first.lerp_(force, rates[0])
    second.lerp_(force.square().mean(dim=1, keepdim=True), rates[1])
    length = (second * corrections[1]).sqrt_() + floor
    factors = force.new_tensor([corrections[0] * s for s in scale]).reshape(1, -1, *[1] * (force.ndim - 2))
    return first * factors / length
