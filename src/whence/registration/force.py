"""What a similarity asks of every voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from whence import kernels
from whence.losses import Similarity


def pull(
    similarity: Similarity,
    warped: torch.Tensor,
    fixed: torch.Tensor,
    weight: torch.Tensor | None,
    scale: Sequence[float],
) -> tuple[float, torch.Tensor]:
    """Energy, and the direction (1, D, *spatial) in which each voxel must sample to lower it fastest.

    By the chain rule, -dE/du(p) = -dE/dwarped(p) * grad warped(p), per voxel of the lattice and scaled by the
    number of voxels, so that it does not depend on it; ``scale`` turns it to another unit, one factor a axis.
    ``warped`` is moving(phi), and moving it further by a small v samples it at p + v(p): the field itself needs
    no gradient, and any similarity will do.
    """
    # A caller who only predicts may have switched gradients off.
    with torch.enable_grad():
        image = warped.detach().requires_grad_(True)
        energy = similarity(image, fixed, weight)
        (slope,) = torch.autograd.grad(energy, image)
    voxels = slope[0, 0].numel()
    return float(energy.detach()), kernels.image_force(warped.detach(), slope, [-voxels * s for s in scale])
