"""Many maps as one, so that an image is resampled once."""

from __future__ import annotations

import torch

from whence import kernels
from whence.field.displacement import Displacement, coordinates_in


def compose(*fields: Displacement) -> Displacement:
    """phi_n o ... o phi_1 on the grid of the first field.

    Fields stand in the order in which a point of the output travels to the source: ``compose(a, b)``
    moves a point by a, then by b, and warping with it equals warping with b and then with a. Each
    field may have its own grid.
    """
    if not fields:
        raise ValueError("expected at least one displacement to compose")
    total = fields[0]
    for field in fields[1:]:
        if field.grid == total.grid:
            total = Displacement(kernels.compose(total.tensor, field.tensor), total.grid)
            continue
        change = total.grid.voxel_map(field.grid)
        dims = total.grid.dims
        linear = torch.from_numpy(change[:dims, :dims].copy()).to(total.tensor)
        here = coordinates_in(total.grid, field.grid, total.tensor.device)
        reached = here + torch.einsum("ij,bj...->bi...", linear, total.tensor)
        vectors = kernels.sample(field.to_world(), reached, "linear", "border")
        total = Displacement.from_world(total.to_world() + vectors, total.grid)
    return total
