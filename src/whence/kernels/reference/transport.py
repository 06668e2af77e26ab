"""Fields acting on fields: composition, the exponential, the Jacobian determinant."""

from __future__ import annotations

import torch

from whence.kernels.reference.sampling import warp


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Displacement of phi_second o phi_first: a point moves by ``first``, then by ``second``.

    u(p) = u_first(p) + u_second(p + u_first(p)), all (B, D, *spatial) in voxels.
    """
    return first + warp(second, first, "linear", "border")


def exp(velocity: torch.Tensor, steps: int = 7) -> torch.Tensor:
    """Displacement at time 1 of a stationary velocity, by scaling and squaring (Arsigny et al. 2006).

    ``velocity`` and result are (B, D, *spatial) in voxels; ``steps`` squarings. ``exp(-velocity)`` is
    the inverse of ``exp(velocity)``.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """det J of phi = id + u at every voxel, (B, 1, *spatial); J[i, j] = d phi_i / d p_j.

    Central differences, one-sided at the border; an axis of one voxel counts as unmoved.
    """
    dims = displacement.shape[1]
    rows = []
    for i in range(dims):
        row = []
        for j in range(dims):
            if displacement.shape[2 + j] > 1:
                slope = torch.gradient(displacement[:, i], dim=1 + j)[0]
            else:
                slope = torch.zeros_like(displacement[:, i])
            row.append(slope + 1 if i == j else slope)
        rows.append(row)
    if dims == 2:
        determinant = rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    else:
        (a, b, c), (d, e, f), (g, h, i) = rows
        determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return determinant[:, None]
