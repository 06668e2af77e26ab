"""Frame: how images enter a network and how what it says returns to the images' own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from whence import kernels
from whence.errors import InputError
from whence.field import resample
from whence.metrics.body import robust_range
from whence.space import Grid, Volume

PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, eq=False)
class Intensity:
    """Linear scale between an image's own intensities and [-1, 1]: tensors that broadcast over the image."""

    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, volume: Volume) -> Intensity:
        """From the 0.5 and 99.5 percent quantiles of an image."""
        return cls.of_tensor(volume.tensor[:1])

    @classmethod
    def of_tensor(cls, tensor: torch.Tensor) -> Intensity:
        """The same for each channel of each image of a batch (B, C, *spatial) by itself."""
        return cls(*robust_range(tensor))

    def normalise(self, tensor: torch.Tensor) -> torch.Tensor:
        """To [-1, 1], clamped."""
        return ((tensor - self.low) / (self.high - self.low) * 2 - 1).clamp(-1, 1)

    def restore(self, tensor: torch.Tensor) -> torch.Tensor:
        """From [-1, 1] to the image's own scale; to its channels' mean scale where the channels are others."""
        low, high = self.low, self.high
        if tensor.shape[1] != low.shape[1]:
            low, high = low.mean(dim=1, keepdim=True), high.mean(dim=1, keepdim=True)
        return (tensor + 1) / 2 * (high - low) + low


@dataclass(frozen=True)
class Frame:
    """What a run's networks see: dimensions, slice plane, spacing, shape and channels.

    ``plane`` names the slices a 2D model takes from volumes, None for a 3D model; 2D files count as axial,
    as they lie in the plane (R, A). ``spacing`` (mm) and ``shape`` are those of the network's lattice, in
    canonical (R, A, S) axis order.
    """

    dims: int
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    source_channels: int = 1
    target_channels: int = 1
    plane: str | None = None

    def __post_init__(self) -> None:
        if self.plane is not None and self.plane not in PLANES:
            raise InputError(f"unknown plane {self.plane!r}; expected one of {', '.join(PLANES)}")
        if self.dims == 2 and self.plane is None:
            object.__setattr__(self, "plane", "axial")
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for YAML."""
        plain = asdict(self)
        return {**plain, "spacing": list(self.spacing), "shape": list(self.shape)}

    def across(self, dims: int) -> int | None:
        """World axis across the slices of an image of ``dims`` dimensions (0 R, 1 A, 2 S), None if it is no stack."""
        return None if dims == self.dims or self.plane is None else PLANES.index(self.plane)

    def lattice(self, grid: Grid, name: str = "image") -> Grid:
        """Grid on which the network sees an image: canonical axes, this frame's spacing, the same view.

        Spacings within 1 % keep the image's own voxels, so that nothing is interpolated.
        """
        if grid.dims < self.dims:
            raise InputError(f"the model expects {self.dims}D images; {name} is {grid.dims}D ({grid})")
        axis = self.across(grid.dims)
        canonical = grid.canonical()
        spacing = np.array(canonical.spacing)
        wanted = spacing.copy()
        inside = [a for a in range(grid.dims) if a != axis]
        wanted[inside] = self.spacing
        if np.allclose(spacing, wanted, rtol=0.01):
            return canonical
        return canonical.resampled(tuple(wanted))

    def enter(self, volume: Volume, lattice: Grid) -> tuple[torch.Tensor, Intensity]:
        """Batch (N, C, *spatial) in [-1, 1] that the network sees of an image, and its intensity scale.

        A 2D model scales each slice by itself, so that it sees slices of a volume as it sees slice files.
        """
        # Where the lattice is coarser, detail it cannot hold would fold back as false structure.
        canonical = volume.grid.canonical()
        factors = lattice.spacing / canonical.spacing
        fine = resample(volume, canonical)
        fine = fine.with_tensor(kernels.gaussian(fine.tensor, [0.4 * f if f > 1.2 else 0.0 for f in factors]))
        batch = self.slices(resample(fine, lattice).tensor)
        intensity = Intensity.of_tensor(batch)
        return intensity.normalise(batch), intensity

    def enter_labels(self, volume: Volume, lattice: Grid) -> torch.Tensor:
        """Batch (N, 1, *spatial) of a segmentation on the lattice, as float32; 0 beyond its file."""
        return self.slices(resample(volume, lattice, mode="label", outside="zeros").tensor).float()

    def slices(self, tensor: torch.Tensor) -> torch.Tensor:
        """Volume (1, C, *3D) as a batch of its slices (N, C, *2D); an image of the model's dimensions: itself."""
        axis = self.across(tensor.ndim - 2)
        return tensor if axis is None else tensor.movedim(2 + axis, 0)[:, 0]

    def stack(self, batch: torch.Tensor, dims: int, vectors: bool = False) -> torch.Tensor:
        """Inverse of ``slices`` for an image of ``dims``; in-plane vectors get a zero component across the slices."""
        axis = self.across(dims)
        if axis is None:
            return batch
        if vectors:
            parts = list(batch.unbind(dim=1))
            parts.insert(axis, torch.zeros_like(parts[0]))
            batch = torch.stack(parts, dim=1)
        return batch[None].movedim(1, 2 + axis)


def single_slice_plane(grid: Grid) -> str | None:
    """Plane of a 3D file that holds one slice; None for any other."""
    if grid.dims != 3 or 1 not in grid.shape:
        return None
    return PLANES[grid.canonical().shape.index(1)]


def fit_shape(tensor: torch.Tensor, shape: Sequence[int], value: float = -1.0) -> torch.Tensor:
    """Centre-crop and pad the spatial axes of (B, C, *spatial) to a shape."""
    for axis, wanted in enumerate(shape, start=2):
        have = tensor.shape[axis]
        if have > wanted:
            tensor = tensor.narrow(axis, (have - wanted) // 2, wanted)
        elif have < wanted:
            before = (wanted - have) // 2
            pad = [0, 0] * (tensor.ndim - axis - 1) + [before, wanted - have - before]
            tensor = F.pad(tensor, pad, value=value)
    return tensor


def fit_grid(grid: Grid, shape: Sequence[int]) -> Grid:
    """The grid of what ``fit_shape`` makes of a grid's voxels."""
    sizes = zip(grid.shape, shape, strict=True)
    start = tuple((have - wanted) // 2 if have > wanted else -((wanted - have) // 2) for have, wanted in sizes)
    return grid.cropped(start, tuple(shape))


def unfit_shape(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Back to a shape after ``fit_shape`` enlarged it."""
    for axis, wanted in enumerate(shape, start=2):
        tensor = tensor.narrow(axis, (tensor.shape[axis] - wanted) // 2, wanted)
    return tensor


def up_to_multiple(shape: Sequence[int], multiple: int) -> tuple[int, ...]:
    """Smallest shape not below this one whose sizes are multiples."""
    return tuple(-(-n // multiple) * multiple for n in shape)


def plane_grid(grid: Grid, plane: str) -> Grid:
    """Of a volume's grid that of its slices of a plane, on canonical axes."""
    grid, axis = grid.canonical(), PLANES.index(plane)
    inside = [a for a in range(3) if a != axis]
    return Grid(tuple(grid.shape[a] for a in inside), grid.affine[np.ix_([*inside, 3], [*inside, 3])])


def plane_views(volume: Volume, plane: str | None) -> Iterator[tuple[int | None, Volume]]:
    """An image itself, or of a volume the slices of a plane with their numbers, on canonical axes."""
    if plane is None or volume.dims == 2:
        yield None, volume
        return
    axis, flat = PLANES.index(plane), plane_grid(volume.grid, plane)
    for index, part in enumerate(volume.grid.to_canonical(volume.tensor).unbind(dim=2 + axis)):
        yield index, Volume(part, flat)
