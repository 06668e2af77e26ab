"""The case bank from tables of pairs: what of a row becomes a case, and what is asked of the bank."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from whence import retrieval
from whence.data.frame import PLANES, plane_views, single_slice_plane
from whence.data.pairs import TEXT, Pair, PairsTable, read_pairs
from whence.errors import InputError
from whence.io import read, read_labels, replacing
from whence.retrieval import Bank, BankSpace, Case, Entry, Manifest, Match, Row, thumbnail
from whence.space import Volume
from whence.train.callbacks import progress_bar
from whence.train.run import model_path

COLUMNS = ("source", "source_mask")


@dataclass(frozen=True)
class BankConfig:
    """Options of a bank that is built.

    Args:
        plane: axial, coronal or sagittal: each slice of a volume that shows the tumour is a case. None: whole images;
            files of one slice are slices all the same.
        spacing: of the grid on which masks are compared, mm, one number for each of its axes; none: the first mask's.
        least: voxels of a mask below which an image, or a slice, is no case.
        images: also keep an embedding of each source image, for retrieval by image.
        approximate: also keep an index for approximate search.
    """

    plane: str | None = None
    spacing: tuple[float, ...] = ()
    least: int = 20
    images: bool = True
    approximate: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing", tuple(self.spacing))
        if self.plane is not None and self.plane not in PLANES:
            raise InputError(f"unknown plane {self.plane!r}; expected one of {', '.join(PLANES)}")
        if self.least < 1 or any(not s > 0 for s in self.spacing):
            raise InputError(f"expected least from 1 and spacings above 0; got {self.least} and {list(self.spacing)}")


def build_bank(data: str | Path, folder: str | Path, config: BankConfig, split: str | None = None) -> Bank:
    """Make a bank of a table's rows (of a split), in place of one that is there, under a progress bar."""
    return bank_from(_table(data, split), folder, config)


def bank_from(table: PairsTable, folder: str | Path, config: BankConfig) -> Bank:
    """``build_bank`` of rows that have been read."""
    if config.plane is None:
        # As fit does: files of single slices are slices.
        first = read_labels(table.rows[0].path("source_mask"))
        config = replace(config, plane=single_slice_plane(first.grid))
    space = _space(table.rows[0], config)
    settings = Manifest(space, config.plane, config.images, config.approximate, origin=origin(table, config))
    with progress_bar() as bar:
        task = bar.add_task("bank", total=len(table), note="")
        small: list[str] = []
        rows = _rows(table, settings, config.least, small)
        found = retrieval.build(folder, settings, rows, lambda done: bar.update(task, completed=done))
    if small:
        print(f"{len(small)} of {len(table)} rows show fewer than {config.least} voxels of tumour and are no cases")
    return found


def origin(table: PairsTable, config: BankConfig) -> str:
    """A hash of all that a bank of a table's rows depends on: their files, with sizes and times, and the options."""
    digest = hashlib.sha256(repr(config).encode())
    for row in table:
        files = {name: (str(path), *_stamp(path)) for name, path in row.files.items()}
        digest.update(json.dumps([row.id, row.split, files, row.conditions], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def add_to_bank(folder: str | Path, data: str | Path, split: str | None = None, least: int = 20) -> Bank:
    """Add a table's rows to a bank, under a progress bar."""
    table, settings = _table(data, split), Bank(folder).manifest
    _check_finished(Path(folder))
    with progress_bar() as bar:
        task = bar.add_task("bank", total=len(table), note="")
        small: list[str] = []
        rows = _rows(table, settings, least, small)
        found = retrieval.add(folder, rows, lambda done: bar.update(task, completed=done))
    if small:
        print(f"{len(small)} of {len(table)} rows show fewer than {least} voxels of tumour and are no cases")
    return found


def remove_from_bank(folder: str | Path, ids: Sequence[str]) -> Bank:
    """Take cases out of a bank."""
    _check_finished(Path(folder))
    return retrieval.remove(folder, ids)


def _check_finished(folder: Path) -> None:
    """Refuse to change the bank of a run that is still learning from it: it would go on with other cases."""
    run = folder.resolve().parent
    if (run / "config.yaml").is_file() and not model_path(run).is_file():
        raise InputError(f"{folder} is the bank of a run that is not finished; expected one that is, or another bank")


def query_bank(
    folder: str | Path,
    mask: str | Path,
    image: str | Path | None = None,
    count: int = 15,
    patient: str | None = None,
    strategy: str = "tumour",
    approximate: bool = False,
    at: int | None = None,
    seed: int = 0,
) -> list[Match]:
    """The cases most like a tumour's mask; of a volume's slices that numbered ``at``, or that of most tumour."""
    bank = Bank(folder)
    seen, index = _one(bank, read_labels(mask), str(mask), at)
    embedding = None
    if image is not None:
        views = [view for _, view in plane_views(read(image), bank.manifest.plane)]
        if len(views) <= (index or 0):
            raise InputError(f"{image} has {len(views)} view(s) and the mask more than {index}; expected as many")
        embedding = _embedding(bank.manifest, views[index or 0])
    elif strategy == "image":
        raise InputError("retrieval by image compares images; expected --image, the query's")
    bits = bank.manifest.space.pack(seen, str(mask))
    generator = torch.Generator().manual_seed(seed)
    return bank.query(bits, count, patient, strategy, embedding, approximate, generator)


def show_matches(matches: Sequence[Match], title: str) -> None:
    """Print the cases that were found, the most similar first."""
    table = Table(title=title)
    for name, side in (
        ("case", "left"),
        ("slice", "right"),
        ("patient", "left"),
        ("IoU", "right"),
        ("similarity", "right"),
    ):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for match in matches:
        case = match.case
        at = "" if case.slice is None else str(case.slice)
        table.add_row(case.id, at, case.patient, f"{match.iou:.3f}", f"{match.similarity:.3f}")
    Console().print(table)


def write_matches(matches: Sequence[Match], path: Path) -> None:
    """Write the cases that were found as a csv table."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = sorted({name for match in matches for name in match.case.files})
        writer.writerow(["id", "slice", "patient", "iou", "similarity", *columns])
        for match in matches:
            case = match.case
            at = "" if case.slice is None else case.slice
            paths = [case.files[name].resolve() if name in case.files else "" for name in columns]
            writer.writerow([case.id, at, case.patient, f"{match.iou:.6f}", f"{match.similarity:.6f}", *paths])


def _table(data: str | Path, split: str | None) -> PairsTable:
    table = read_pairs(data, COLUMNS)
    return table if split is None else table.split(split)


def _space(row: Pair, config: BankConfig) -> BankSpace:
    """The grid of a table's first mask, as far as it lies in the plane, at the spacing that is asked for."""
    mask = read_labels(row.path("source_mask"))
    if config.plane is not None and mask.dims == 2:
        raise InputError(f"{row.path('source_mask')} is 2D and has no {config.plane} slices; leave the plane out")
    _, first = next(plane_views(mask, config.plane))
    grid = first.grid.canonical()
    if not config.spacing:
        return BankSpace(grid)
    if len(config.spacing) != grid.dims:
        raise InputError(f"--spacing needs {grid.dims} numbers for {grid.dims}D masks; got {list(config.spacing)}")
    return BankSpace(grid.resampled(config.spacing))


def _rows(table: PairsTable, settings: Manifest, least: int, small: list[str]) -> Iterator[Row]:
    """The rows as they are read; ``small`` gets the ids of those that turn out to hold no case."""

    def load(row: Pair) -> list[Entry]:
        found = list(_entries(row, settings, least))
        if not found:
            small.append(row.id)
        return found

    for row in table:
        yield Row(row.id, partial(load, row))


def _entries(row: Pair, settings: Manifest, least: int) -> Iterator[Entry]:
    path = row.path("source_mask")
    mask, image = read_labels(path), read(row.path("source")) if settings.images else None
    patient = str(row.conditions.get("patient", row.id))
    facts = {name: value for name, value in row.conditions.items() if name not in TEXT}
    case = Case(row.id, patient, row.files, {"split": row.split, **facts})
    views = list(plane_views(mask, settings.plane))
    seen = None if image is None else [view for _, view in plane_views(image, settings.plane)]
    if seen is not None and len(seen) != len(views):
        raise InputError(f"{path} has {len(views)} {settings.plane} slices, its image {len(seen)}; expected as many")
    for place, (index, view) in enumerate(views):
        if int((view.tensor != 0).sum()) < least:
            continue
        bits = settings.space.pack(view, f"slice {index} of {path}" if index is not None else str(path))
        embedding = None if seen is None else _embedding(settings, seen[place])
        yield Entry(replace(case, slice=index), bits, embedding)


def _embedding(settings: Manifest, image: Volume) -> np.ndarray:
    return thumbnail(image, settings.space.grid)


def _one(bank: Bank, mask: Volume, name: str, at: int | None) -> tuple[Volume, int | None]:
    """What of a query's mask the bank compares, and which slice it is."""
    views = list(plane_views(mask, bank.manifest.plane))
    if len(views) == 1:
        return views[0][1], None
    sizes = [int((view.tensor != 0).sum()) for _, view in views]
    index = int(np.argmax(sizes)) if at is None else at
    if not 0 <= index < len(views):
        raise InputError(f"{name} has the {bank.manifest.plane} slices 0 to {len(views) - 1}; got {index}")
    return views[index][1], index


def show_info(info: dict[str, Any]) -> None:
    """Print what a bank says of itself."""
    for name, value in info.items():
        Console().print(f"{name:12s} {value}", highlight=False)
