"""A segment of a bank on disk: so many cases, written once and never changed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InputError

CASES, MASKS, IMAGES, INDEX = "cases.jsonl", "masks.npy", "images.npy", "masks.usearch"


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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.masks = _mapped(folder / MASKS, 2)
        self.images = _mapped(folder / IMAGES, 2) if (folder / IMAGES).is_file() else None
        # Opened with the masks: a later build may take the files away, and what is open stays.
        self._cases = (folder / CASES).read_bytes()

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def cases(self) -> list[Case]:
        home = self.folder.parent
        found = []
        try:
            for line in self._cases.decode().splitlines():
                plain = json.loads(line)
                files = {name: Path(os.path.normpath(home / path)) for name, path in plain["files"].items()}
                found.append(Case(plain["id"], plain["patient"], files, plain["facts"], plain["slice"]))
        except (ValueError, KeyError) as error:
            raise InputError(f"{self.folder / CASES} cannot be read: {error}") from error
        if len(found) != len(self.masks):
            raise InputError(f"{self.folder} holds {len(found)} cases and {len(self.masks)} masks; expected as many")
        return found

    @cached_property
    def rows_of(self) -> dict[str, list[int]]:
        """Rows of each patient."""
        found: dict[str, list[int]] = {}
        for number, case in enumerate(self.cases):
            found.setdefault(case.patient, []).append(number)
        return found

    @cached_property
    def index(self) -> Any:
        """The approximate index, read where it lies; None where there is none."""
        path = self.folder / INDEX
        if not path.is_file():
            return None
        return _usearch().Index.restore(str(path), view=True)

    def nearest_masks(self, bits: np.ndarray, count: int, approximate: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows and Tanimoto distances (1 - IoU) of the ``count`` nearest masks, the nearest first."""
        count = min(count, len(self))
        if approximate and self.index is not None:
            # More candidates than are asked for: recall costs fractions of a millisecond here.
            self.index.expansion_search = max(128, 4 * count)
            found = self.index.search(bits, count, threads=1)
        else:
            tanimoto = _usearch().MetricKind.Tanimoto
            found = _usearch().search(self.masks, bits, count, tanimoto, exact=True)
        return np.asarray(found.keys, dtype=np.int64), np.asarray(found.distances, dtype=np.float64)


def write_segment(
    folder: Path, home: Path, cases: Sequence[Case], masks: np.ndarray, images: np.ndarray | None, index: bool
) -> None:
    """Write cases, masks (N, bytes) and embeddings (N, n) into a folder; paths as they run from the bank's ``home``."""
    with (folder / CASES).open("w", encoding="utf-8") as file:
        for case in cases:
            files = {name: Path(os.path.relpath(path, home)).as_posix() for name, path in case.files.items()}
            plain = {"id": case.id, "patient": case.patient, "slice": case.slice, "files": files, "facts": case.facts}
            file.write(json.dumps(plain) + "\n")
    np.save(folder / MASKS, masks)
    if images is not None:
        np.save(folder / IMAGES, images)
    if index:
        usearch = _usearch()
        made = usearch.Index(ndim=8 * masks.shape[1], metric=usearch.MetricKind.Tanimoto, dtype=usearch.ScalarKind.B1)
        made.add(np.arange(len(masks)), masks)
        made.save(str(folder / INDEX))


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
