"""Samples of a pairs table as a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from whence.data.frame import PLANES, Frame, fit_grid, fit_shape, plane_grid, single_slice_plane
from whence.data.pairs import Pair, PairsTable
from whence.errors import InputError
from whence.io import read, read_labels
from whence.space import Grid, Volume

Progress = Callable[[int, int], None]
Derive = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
# A row's conditions as a vector (K,).
Told = Callable[[Mapping[str, Any]], torch.Tensor]


def survey(
    table: PairsTable,
    dims: int | None = None,
    plane: str | None = None,
    size: Sequence[int] = (),
    spacing: Sequence[float] = (),
    rescale: bool = False,
) -> Frame:
    """Frame of a table: median spacing and largest shape of its sources, or those asked for.

    A table without targets counts as one whose targets have the sources' channels.

    ``rescale`` takes the spacing, one for all axes, at which the largest image fills ``size``.
    ``dims`` defaults to that of the images, or 2 where a plane is named or volumes are single slices.
    Raises InputError where images differ in dimensions or do not suit what was asked.
    """
    found = [_grid_and_channels(row) for row in table]
    first, channels = found[0]
    for row, (grid, count) in zip(table, found, strict=True):
        if grid.dims != first.dims or count != channels:
            raise InputError(
                f"{row.path('source')} is {grid.dims}D with {count} channels; the table's first "
                f"source is {first.dims}D with {channels}"
            )
    if plane is not None and plane not in PLANES:
        raise InputError(f"unknown plane {plane!r}; expected one of {', '.join(PLANES)}")
    plane = plane or single_slice_plane(first)
    dims = dims or (2 if plane or first.dims == 2 else 3)
    if dims > first.dims:
        raise InputError(f"a {dims}D model needs {dims}D images; {table.rows[0].path('source')} is {first.dims}D")
    if dims == 2 and first.dims == 3 and plane is None:
        raise InputError("a 2D model on volumes needs the plane of its slices: --plane axial, coronal or sagittal")
    plane = None if dims == 3 else plane or "axial"
    inside = [a for a in range(first.dims) if first.dims == dims or plane is None or a != PLANES.index(plane)]
    grids = [grid.canonical() for grid, _ in found]
    for name, asked in (("size", size), ("spacing", spacing)):
        if asked and len(asked) != dims:
            raise InputError(f"--{name} needs {dims} numbers for a {dims}D model; got {list(asked)}")
    if rescale and not size:
        raise InputError("--rescale needs a --size to scale the images to")
    if rescale:
        extents = np.max([np.multiply(grid.shape, grid.spacing)[inside] for grid in grids], axis=0)
        spacing = (round(float(np.max(extents / np.asarray(size))), 4),) * dims
    if not spacing:
        spacing = np.round(np.median([grid.spacing[inside] for grid in grids], axis=0), 4).tolist()
    files = table.rows[0].files
    target_channels = read(files["target"]).tensor.shape[1] if "target" in files else channels
    frame = Frame(
        dims,
        tuple(spacing),
        tuple(size) or (1,) * dims,
        channels,
        target_channels,
        plane,
    )
    if not size:
        shapes = [[frame.lattice(grid).shape[a] for a in inside] for grid in grids]
        frame = Frame(**{**frame.to_dict(), "shape": np.max(shapes, axis=0)})
    return frame


class PairDataset(Dataset):
    """Images of a table, (C, *shape) in [-1, 1], kept in memory after the first reading.

    ``columns`` are those every sample holds, ``optional`` those it holds where every row has them.
    A 2D frame on volumes makes a sample of every slice that shows enough foreground in all its images.
    ``foreground`` is the least share of voxels above background a slice must have. ``derive`` makes further tensors
    of a sample's images, each with a batch axis of 1, which are kept with it. With ``labels`` a sample also holds those
    of each image, (1, *shape), as ``<image>_labels``, the column they stand in. ``masks`` are columns of masks, 0 or 1,
    beside them; ``told`` gives what a sample holds of its row's conditions. ``ids`` and ``slices`` say which row and
    which slice of it a sample is, None for a whole image, ``grids`` where its voxels lie.
    """

    def __init__(
        self,
        table: PairsTable,
        frame: Frame,
        foreground: float = 0.02,
        progress: Progress | None = None,
        columns: Sequence[str] = ("source", "target"),
        optional: Sequence[str] = ("registered",),
        derive: Derive | None = None,
        labels: bool = False,
        masks: Sequence[str] = (),
        told: Told | None = None,
    ) -> None:
        self.frame, self.labels, self.masks = frame, labels, tuple(masks)
        self.columns = [*columns, *(column for column in optional if table.has(column))]
        self.samples: list[dict[str, torch.Tensor]] = []
        self.ids: list[str] = []
        self.slices: list[int | None] = []
        self.grids: list[Grid] = []
        kept: dict[tuple[Path, Path, int | None], torch.Tensor] = {}
        for number, row in enumerate(table, start=1):
            lattice, samples = self._row(row, foreground)
            stacked = frame.plane is not None and frame.across(lattice.dims) is not None
            grid = fit_grid(plane_grid(lattice, str(frame.plane)) if stacked else lattice, frame.shape)
            for place, sample in samples:
                # An atlas that is the source of all rows is kept once; what is seen depends on the source's lattice.
                for name in sample.keys() & row.files.keys():
                    sample[name] = kept.setdefault((row.path(name), row.path("source"), place), sample[name])
                if told is not None:
                    try:
                        sample["conditions"] = told(row.conditions)
                    except InputError as error:
                        raise InputError(f"row {row.id!r} of {table.path}: {error}") from error
                self.samples.append(sample if derive is None else sample | _derived(sample, derive))
                self.ids.append(row.id)
                self.slices.append(place)
                self.grids.append(grid)
            if progress is not None:
                progress(number, len(table))
        if not self.samples:
            raise InputError(f"no slice of {table.path} shows enough foreground in {' and '.join(self.columns)}")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: value.float() for name, value in self.samples[index].items()}

    def _row(self, row: Pair, foreground: float) -> tuple[Grid, list[tuple[int | None, dict[str, torch.Tensor]]]]:
        """The lattice on which a row's images are seen, and its samples."""
        volumes = {column: read_image(row.path(column)) for column in self.columns}
        source = volumes["source"]
        lattice = self.frame.lattice(source.grid, str(row.path("source")))
        batches = {}
        for column, volume in volumes.items():
            if volume.dims != source.dims:
                raise InputError(f"{row.path(column)} is {volume.dims}D while {row.path('source')} is {source.dims}D")
            of_target = column in ("target", "counterpart")
            channels = self.frame.target_channels if of_target else self.frame.source_channels
            if volume.tensor.shape[1] != channels:
                raise InputError(
                    f"{row.path(column)} has {volume.tensor.shape[1]} channels; "
                    f"expected {channels} as in the table's first row"
                )
            batch, _ = self.frame.enter(volume, lattice)
            # Half precision keeps 11 bits, more than a scanner's noise leaves, in half the memory.
            batches[column] = fit_shape(batch, self.frame.shape).half()
            if self.labels:
                found = read_labels(row.path(f"{column}_labels"))
                if found.dims != source.dims or found.tensor.shape[1] != 1:
                    raise InputError(
                        f"{row.path(f'{column}_labels')} is {found.dims}D with {found.tensor.shape[1]} channel(s); "
                        f"expected {source.dims}D with 1, as labels of its image"
                    )
                batches[f"{column}_labels"] = fit_shape(self.frame.enter_labels(found, lattice), self.frame.shape, 0.0)
        for column in self.masks:
            mask = read_labels(row.path(column))
            if mask.dims != source.dims or mask.tensor.shape[1] != 1:
                raise InputError(
                    f"{row.path(column)} is {mask.dims}D with {mask.tensor.shape[1]} channel(s); "
                    f"expected {source.dims}D with 1, as a mask beside its image"
                )
            inside = mask.with_tensor((mask.tensor != 0).to(torch.uint8))
            batch = self.frame.enter_labels(inside, lattice)
            batches[column] = fit_shape(batch, self.frame.shape, 0.0).to(torch.uint8)
        count = batches["source"].shape[0]
        samples = [{column: batch[n] for column, batch in batches.items()} for n in range(count)]
        if self.frame.across(lattice.dims) is None:
            return lattice, [(None, sample) for sample in samples]
        return lattice, [
            (place, sample)
            for place, sample in enumerate(samples)
            if all(float((sample[name] > -0.8).float().mean()) >= foreground for name in self.columns)
        ]


def _derived(sample: dict[str, torch.Tensor], derive: Derive) -> dict[str, torch.Tensor]:
    found = derive({name: image[None].float() for name, image in sample.items()})
    return {name: value[0].half() for name, value in found.items()}


def read_image(path: str | Path) -> Volume:
    """Read an image that a network can learn from. Raises InputError where it is constant."""
    volume = read(path)
    if float(volume.tensor.min()) == float(volume.tensor.max()):
        raise InputError(f"{path} is constant ({float(volume.tensor.min()):g} everywhere); expected an image")
    return volume


def _grid_and_channels(row: Pair) -> tuple[Grid, int]:
    volume = read(row.path("source"))
    return volume.grid, volume.tensor.shape[1]
