"""Whether two images show things in one contrast."""

from __future__ import annotations

import numpy as np
import torch

from whence.registration.pyramid import coarser, region, seen_on, seen_through
from whence.space import Volume

# Correlation from which on they do: heads of two people (T1) reach 0.58 and more, T1 and T2 or CT and MR 0.28 at most.
ALIKE = 0.45
# Above it an image, in [-1, 1], is no background, which is dark in all modalities.
BACKGROUND = -0.8
# Voxels along the longest axis on which they are compared.
ACROSS = 64


def alike(
    fixed: Volume, moving: Volume, matrix: np.ndarray, fixed_mask: Volume | None, moving_mask: Volume | None
) -> bool:
    """Whether the intensities of two scaled images correlate where an affine (fixed to moving) brings them together.

    Background counts nowhere. Images that share too little to tell are taken to be alike.
    """
    whole = region(fixed, fixed_mask)
    grid = coarser(whole, float(np.max(np.asarray(whole.shape) * whole.spacing)) / ACROSS)
    there = moving.with_tensor(torch.ones_like(moving.tensor[:, :1])) if moving_mask is None else moving_mask
    one = seen_on(grid, fixed, fixed_mask, moving_mask is None)
    other = seen_on(grid, seen_through(matrix, moving), seen_through(matrix, there))
    inside = (one.image > BACKGROUND) & (other.image > BACKGROUND)
    for weight in (one.weight, other.weight):
        if weight is not None:
            inside &= weight > 0.5
    a, b = one.image[inside], other.image[inside]
    if len(a) < 16:
        return True
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum()) >= ALIKE * float(a.square().sum().sqrt() * b.square().sum().sqrt())
