"""Images carried by fields, and images brought to other grids."""

from __future__ import annotations

import numpy as np
import torch

from whence import kernels
from whence.field.displacement import Displacement, coordinates_in
from whence.space import Grid, Volume


def warp(volume: Volume, displacement: Displacement, mode: str = "linear", outside: str = "border") -> Volume:
    """moved(p) = moving(p + u(p)) on the displacement's grid; the moving image may have any grid.

    ``mode`` is ``linear``, ``nearest`` or, for integer labels, ``label``: the label of greatest weight among the
    voxels around a point (labels keep their values and their type). ``outside`` names what lies beyond the
    moving image: ``border`` or ``zeros``.
    """
    grid = displacement.grid
    change = grid.voxel_map(volume.grid)
    linear = torch.from_numpy(change[: grid.dims, : grid.dims].copy()).to(displacement.tensor)
    here = coordinates_in(grid, volume.grid, displacement.tensor.device)
    coordinates = here + (linear @ displacement.tensor.flatten(2)).reshape(displacement.tensor.shape)
    return Volume(_sample(volume.tensor, coordinates, mode, outside), grid)


def resample(volume: Volume, grid: Grid, mode: str = "linear", outside: str = "border") -> Volume:
    """The same image on another grid of the same world; the image itself where the grids are one."""
    if np.array_equal(grid.affine, volume.grid.affine) and grid.shape == volume.grid.shape:
        return volume
    coordinates = coordinates_in(grid, volume.grid, volume.tensor.device)
    return Volume(_sample(volume.tensor, coordinates, mode, outside), grid)


def _sample(tensor: torch.Tensor, coordinates: torch.Tensor, mode: str, outside: str) -> torch.Tensor:
    if mode == "label":
        return kernels.sample_labels(tensor, coordinates, outside)
    if tensor.is_floating_point():
        return kernels.sample(tensor, coordinates, mode, outside)
    if mode != "nearest":
        raise ValueError(f"labels of type {tensor.dtype} are sampled with mode 'label' or 'nearest'; got {mode!r}")
    # float64 holds every label of up to 53 bits; float32 would merge large ones.
    return kernels.sample(tensor.double(), coordinates, mode, outside).round().to(tensor.dtype)
