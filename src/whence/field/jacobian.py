"""Local change of volume, and where a field folds."""

from __future__ import annotations

import torch

from whence import kernels
from whence.field.displacement import Displacement


def jacobian_determinant(displacement: Displacement) -> torch.Tensor:
    """det J of phi at every voxel, (B, 1, *spatial): above 1 where the output was drawn from more source."""
    return kernels.jacobian_determinant(displacement.tensor)


def folding(displacement: Displacement, mask: torch.Tensor | None = None) -> float:
    """Share of voxels (inside a mask (B, 1, *spatial), if given) with det J <= 0."""
    folded = jacobian_determinant(displacement) <= 0
    if mask is not None:
        folded = folded[mask.bool().expand_as(folded)]
    return float(folded.double().mean()) if folded.numel() else 0.0
