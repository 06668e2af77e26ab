"""Regularity of velocities and displacements (B, D, *spatial), in voxels."""

from __future__ import annotations

import torch


def gradient_energy(field: torch.Tensor) -> torch.Tensor:
    """Mean |grad v|^2 over voxels: squared forward differences, summed over components and axes."""
    total = field.new_zeros(())
    for axis in range(2, field.ndim):
        if field.shape[axis] > 1:
            total = total + field.diff(dim=axis).square().sum(dim=1).mean()
    return total


def bending_energy(field: torch.Tensor) -> torch.Tensor:
    """Mean squared second derivatives, mixed ones counted twice (Rueckert et al. 1999)."""
    total = field.new_zeros(())
    axes = [axis for axis in range(2, field.ndim) if field.shape[axis] > 2]
    for position, i in enumerate(axes):
        total = total + field.diff(n=2, dim=i).square().sum(dim=1).mean()
        for j in axes[position + 1 :]:
            total = total + 2 * field.diff(dim=i).diff(dim=j).square().sum(dim=1).mean()
    return total
