"""The case bank: past cases in a folder, and the nearest of them to a tumour.

A bank is a file that names the segments it is made of, ``bank.json``, and these, which are never changed. Whoever opens
it has what the file named then; a writer makes new segments and lets a new file take the old one's place, so that
whatever happens in between the bank is the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.errors import InputError
from whence.retrieval.manifest import Manifest
from whence.retrieval.segment import Case, Segment

STRATEGIES = ("tumour", "image", "random")


@dataclass(frozen=True)
class Match:
    """A case that was found: the IoU of its mask with the query's, and by what it was ranked, greatest first."""

    case: Case
    iou: float
    similarity: float


class Bank:
    """The cases of a folder as they are when it is opened.

    Raises InputError where the folder holds no bank.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # Between the reading of the names and the opening of the segments a writer may have replaced both.
        for attempt in range(20):
            self.manifest = Manifest.read(self.folder)
            try:
                parts = (self.manifest.images, self.manifest.approximate)
                self.segments = [Segment(self.folder / name, *parts) for name in self.manifest.segments]
                break
            except FileNotFoundError as error:
                if attempt == 19:
                    raise InputError(f"{self.folder} lacks a part of itself: {error.filename}") from error
        self._gone = [set(self.manifest.removed.get(name, ())) for name in self.manifest.segments]

    def __len__(self) -> int:
        return sum(map(len, self.segments)) - sum(map(len, self._gone))

    def __iter__(self) -> Iterator[Case]:
        for segment, gone in zip(self.segments, self._gone, strict=True):
            yield from (case for row, case in enumerate(segment.cases) if row not in gone)

    def query(
        self,
        bits: np.ndarray | None = None,
        count: int = 15,
        patient: str | None = None,
        strategy: str = "tumour",
        image: np.ndarray | None = None,
        approximate: bool = False,
        generator: torch.Generator | None = None,
    ) -> list[Match]:
        """The ``count`` cases most like a query, never of its own ``patient``; fewer where the bank has no more.

        Args:
            bits: the query's mask as ``manifest.space`` packs it, for ``tumour``; for others to know the IoU.
            strategy: ``tumour`` by the masks' IoU, ``image`` by the cosine of embeddings, or ``random``.
            image: the query's embedding (n,), for ``image``.
            approximate: search the graph of the masks' index, where the bank has one, instead of all masks.
            generator: of ``random``; needed there.
        """
        if strategy not in STRATEGIES:
            raise InputError(f"unknown strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}")
        if count < 1:
            raise InputError(f"expected one case or more to look for; got {count}")
        if strategy == "tumour":
            ranked = self._by_tumour(_needed(bits, "mask", strategy), count, patient, approximate)
        elif strategy == "image":
            ranked = self._by_image(_needed(image, "image", strategy), count, patient)
        else:
            ranked = self._at_random(count, patient, generator)
        return [self._match(place, similarity, bits) for place, similarity in ranked]

    def likest(self, name: str, bits: np.ndarray) -> Match:
        """Of a case of this name, whole or of many slices, what overlaps a mask most; of none that does, the largest.

        Raises InputError where there is none.
        """
        found = [
            (overlap(bits, segment.masks[row]), int(np.unpackbits(segment.masks[row]).sum()), segment.case(row))
            for segment, gone in zip(self.segments, self._gone, strict=True)
            for row in segment.rows_named(name)
            if row not in gone
        ]
        if not found:
            raise InputError(f"{self.folder} has no case {name!r}; expected the id of one that it has")
        iou, _, case = max(found, key=lambda match: match[:2])
        return Match(case, iou, iou)

    def info(self) -> dict[str, Any]:
        """What the bank holds and how large it is: cases, patients, grid, bytes."""
        grid = self.manifest.space.grid
        return {
            "cases": len(self),
            "patients": len({case.patient for case in self}),
            "removed": sum(map(len, self._gone)),
            "grid": repr(grid),
            "plane": self.manifest.plane,
            "approximate": self.manifest.approximate,
            "images": self.manifest.images,
            "segments": len(self.segments),
            "megabytes": round(sum(segment.size for segment in self.segments) / 1e6, 1),
        }

    def bits(self, place: tuple[int, int]) -> np.ndarray:
        """Packed mask of a place (segment, row)."""
        return self.segments[place[0]].masks[place[1]]

    def _by_tumour(
        self, bits: np.ndarray, count: int, patient: str | None, approximate: bool
    ) -> list[tuple[tuple[int, int], float]]:
        found = []
        for number, segment in enumerate(self.segments):
            out = self._out(number, patient)
            rows, distances = segment.nearest_masks(bits, count + len(out), approximate)
            pairs = zip(rows.tolist(), distances.tolist(), strict=True)
            found += [((number, row), 1 - distance) for row, distance in pairs if row not in out]
        return _first(found, count)

    def _by_image(self, image: np.ndarray, count: int, patient: str | None) -> list[tuple[tuple[int, int], float]]:
        if not self.manifest.images:
            raise InputError(f"{self.folder} was built without images; expected a bank that has their embeddings")
        found = []
        for number, segment in enumerate(self.segments):
            out = self._out(number, patient)
            assert segment.images is not None
            similar = segment.images @ image.astype(np.float32)
            rows = np.argsort(-similar, kind="stable")[: count + len(out)]
            found += [((number, row), float(similar[row])) for row in rows.tolist() if row not in out]
        return _first(found, count)

    def _at_random(
        self, count: int, patient: str | None, generator: torch.Generator | None
    ) -> list[tuple[tuple[int, int], float]]:
        if generator is None:
            raise ValueError("random retrieval needs a generator")
        places = []
        for number, segment in enumerate(self.segments):
            out = self._out(number, patient)
            places += [(number, row) for row in range(len(segment)) if row not in out]
        order = torch.randperm(len(places), generator=generator)[:count].tolist()
        return [(places[k], 0.0) for k in order]

    def _out(self, number: int, patient: str | None) -> set[int]:
        """Rows of a segment that no query finds: removed ones, and the patient's own."""
        own = set() if patient is None else self.segments[number].rows_of(patient)
        return self._gone[number] | own

    def _match(self, place: tuple[int, int], similarity: float, bits: np.ndarray | None) -> Match:
        case = self.segments[place[0]].case(place[1])
        iou = float("nan") if bits is None else overlap(bits, self.bits(place))
        return Match(case, iou, similarity)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two packed masks."""
    both, either = (int(np.unpackbits(bits).sum()) for bits in (one & other, one | other))
    return both / either if either else 0.0


def _first(found: Iterable[tuple[tuple[int, int], float]], count: int) -> list[tuple[tuple[int, int], float]]:
    """The most similar, of equals those that were added first."""
    return sorted(found, key=lambda match: (-match[1], match[0]))[:count]


def _needed(given: np.ndarray | None, what: str, strategy: str) -> np.ndarray:
    if given is None:
        raise InputError(f"retrieval by {strategy} compares {what}s; expected the query's")
    return given
