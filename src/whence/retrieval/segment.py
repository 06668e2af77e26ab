"""A segment of a bank on disk: so many cases, written once and never changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InputError

CASES, MASKS, IMAGES, INDEX = "cases.jsonl", "masks.npy", "images.npy", "masks.usearch"
LINES, PATIENTS, IDS = "lines.npy", "patients.npy", "ids.npy"


@dataclass(frozen=True)
class Case:
    """A past case: its name, whose it is, the files it names by column, and facts of it.

    ``slice`` is which slice of the files' volumes it is, counted along the bank's plane from the canonical axes'
    beginning; None for whole images.
    """

    id: str
    patient: str
    files: dict[str, Path]
    facts: dict[str, Any] = field(default_factory=dict)
    slice: int | None = None


class Segment:
    """Cases of one folder, whose masks and embeddings are read where they lie.

    Raises InputError where the folder holds something else.
    """

    def __init__(self, folder: Path, images: bool, approximate: bool) -> None:
        self.folder, self._home = folder, folder.parent.resolve()
        # All are opened now: a later build may take the files away, and what is open stays.
        self.masks = _mapped(folder / MASKS, 2)
        self.images = _mapped(folder / IMAGES, 2) if images else None
        self._lines, self._patients, self._ids = (_mapped(folder / name, 1) for name in (LINES, PATIENTS, IDS))
        self._text = np.memmap(folder / CASES, dtype=np.uint8, mode="r")
        self.size = sum(file.stat().st_size for file in folder.iterdir())
        self.index = _restored(folder / INDEX) if approximate else None
        parts = [self.masks, self._lines[1:], self._patients, self._ids]
        counts = sorted({len(part) for part in [*parts, *([] if self.images is None else [self.images])]})
        if len(counts) > 1 or self._lines[-1] != len(self._text):
            raise InputError(f"{folder} is torn: its files hold {counts} cases; expected as many each")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def cases(self) -> Iterator[Case]:
        """All cases, in order."""
        return (self.case(row) for row in range(len(self)))

    def case(self, row: int) -> Case:
        """The case of a row."""
        try:
            plain = json.loads(self._text[self._lines[row] : self._lines[row + 1]].tobytes())
            files = {name: Path(os.path.normpath(self._home / path)) for name, path in plain["files"].items()}
            return Case(plain["id"], plain["patient"], files, plain["facts"], plain["slice"])
        except (ValueError, KeyError) as error:
            raise InputError(f"{self.folder / CASES} cannot be read: {error}") from error

    def rows_of(self, patient: str) -> set[int]:
        """Rows of a patient."""
        rows = np.flatnonzero(self._patients == _hash(patient)).tolist()
        return {row for row in rows if self.case(row).patient == patient}

    def rows_named(self, name: str) -> list[int]:
        """Rows of the cases of an id, in order."""
        return [row for row in np.flatnonzero(self._ids == _hash(name)).tolist() if self.case(row).id == name]

    def nearest_masks(self, bits: np.ndarray, count: int, approximate: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows and Tanimoto distances (1 - IoU) of the ``count`` nearest masks, the nearest first."""
        count = min(count, len(self))
        if approximate and self.index is not None:
            # Twice as many candidates as are asked for; more find nothing more, and each that is looked at is a page of
            # a mapped file that must first be had.
            self.index.expansion_search = max(32, 2 * count)
            found = self.index.search(bits, count, threads=1)
        else:
            tanimoto = _usearch().MetricKind.Tanimoto
            found = _usearch().search(self.masks, bits, count, tanimoto, exact=True)
        return np.asarray(found.keys, dtype=np.int64), np.asarray(found.distances, dtype=np.float64)


def write_segment(
    folder: Path, home: Path, cases: Sequence[Case], masks: np.ndarray, images: np.ndarray | None, index: bool
) -> None:
    """Write cases, masks (N, bytes) and embeddings (N, n) into a folder; paths as they run from the bank's ``home``."""
    lines = [0]
    with (folder / CASES).open("wb") as file:
        for case in cases:
            files = {name: _relative(path, home) for name, path in case.files.items()}
            plain = {"id": case.id, "patient": case.patient, "slice": case.slice, "files": files, "facts": case.facts}
            lines.append(lines[-1] + file.write(json.dumps(plain).encode() + b"\n"))
    np.save(folder / LINES, np.array(lines, dtype=np.int64))
    np.save(folder / PATIENTS, np.array([_hash(case.patient) for case in cases], dtype=np.uint64))
    np.save(folder / IDS, np.array([_hash(case.id) for case in cases], dtype=np.uint64))
    np.save(folder / MASKS, masks)
    if images is not None:
        np.save(folder / IMAGES, images)
    if index:
        usearch = _usearch()
        made = usearch.Index(ndim=8 * masks.shape[1], metric=usearch.MetricKind.Tanimoto, dtype=usearch.ScalarKind.B1)
        made.add(np.arange(len(masks)), masks)
        made.save(str(folder / INDEX))


def _relative(path: Path, home: Path) -> str:
    """A path as it runs from a folder, links followed; the whole of it where it lies on another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), home.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _restored(path: Path) -> Any:
    usearch = _usearch()
    try:
        found = usearch.Index.restore(str(path), view=True)
    except Exception as error:  # of a file that a writer takes away meanwhile USearch says one thing or another
        if not path.is_file():
            raise FileNotFoundError(2, "no such file", str(path)) from error
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if found is None:
        raise FileNotFoundError(2, "no such file", str(path))
    return found


def _hash(patient: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(patient.encode(), digest_size=8).digest(), "little"))


def _mapped(path: Path, ndim: int) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if found.ndim != ndim:
        raise InputError(f"{path} has {found.ndim} axes; expected {ndim}")
    return found


def _usearch() -> Any:
    try:
        from usearch import index
    except ImportError as error:
        raise InputError("the case bank needs USearch: python -m pip install 'whence[retrieval]'") from error
    return index
