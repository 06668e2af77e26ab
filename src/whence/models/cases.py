"""Past cases as a method sees them beside an image: found in a bank, read and brought to its lattice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.data.frame import Frame, plane_views
from whence.data.retrieved import placed
from whence.errors import InputError
from whence.field import resample
from whence.io import read, read_labels
from whence.models.method import Method
from whence.retrieval import Bank, Match, thumbnail
from whence.space import Grid, Volume


@dataclass(frozen=True)
class Asked:
    """What a user says of the past cases: whose not to take, which one, by its id or its ``rank`` among the most
    similar (from 0); of the operation: what is cut out; and of which files the query is, that none shows itself."""

    patient: str | None = None
    case: str | None = None
    resection: Volume | None = None
    rank: int = 0
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class FoundCases:
    """Of the slices ``places`` of a batch the cases beside them: ``batch`` as the method sees it, and who they are."""

    places: list[int]
    batch: dict[str, torch.Tensor]
    matches: list[Match] = field(default_factory=list)

    def facts(self) -> list[dict[str, Any]]:
        """Plain values of who was found, for a trace."""
        return [
            {"slice": place, "case": match.case.id, "case_slice": match.case.slice, "iou": round(match.iou, 4)}
            | {"patient": match.case.patient}
            for place, match in zip(self.places, self.matches, strict=True)
        ]


def cases_beside(
    method: Method,
    frame: Frame,
    bank: Bank,
    source: Volume,
    mask: Volume,
    plan: Volume | None,
    lattice: Grid,
    asked: Asked,
) -> FoundCases:
    """The cases of an image, or of a volume's slices that show tumour or plan: slices of one case, the likest there.

    Raises InputError where the bank has none, or not the one that is asked for.
    """
    how = method.retrieval(method.config)
    assert how is not None
    plane = frame.plane if frame.across(source.dims) is not None else None
    if plane is not None and bank.manifest.plane not in (None, plane):
        raise InputError(f"{bank.folder} holds {bank.manifest.plane} slices; expected {plane} ones, as the model sees")
    # On the image's own voxels, so that overlaps are those of a query; a lattice has the same slices.
    masks = [view for _, view in plane_views(_union(mask, plan, source.grid), plane)]
    images = [view for _, view in plane_views(source, plane)]
    sizes = [int((view.tensor != 0).sum()) for view in masks]
    places = [place for place, size in enumerate(sizes) if size]
    largest = max(places, key=lambda place: sizes[place])
    packed = {place: bank.manifest.space.pack(masks[place], "the mask") for place in places}
    chosen = asked.case
    if chosen is None:
        image = thumbnail(images[largest], bank.manifest.space.grid) if how.strategy == "image" else None
        chosen = _ranked(bank, packed[largest], asked, how.strategy, image)
    found = {place: bank.likest(chosen, packed[place]) for place in places}
    if asked.patient is not None and found[largest].case.patient == asked.patient:
        raise InputError(f"case {chosen!r} is of patient {asked.patient} itself; expected another's")
    # A slice that overlaps none of the case's sees what the nearest slice that does sees.
    seen = [place for place in places if found[place].iou > 0] or places
    matches = [found[min(seen, key=lambda other: abs(other - place))] for place in places]
    _, seen_on = next(plane_views(Volume(torch.zeros(1, 1, *lattice.shape), lattice), plane))
    return FoundCases(places, _batch(method, frame, matches, seen_on.grid), matches)


def _ranked(bank: Bank, bits: np.ndarray, asked: Asked, strategy: str, image: np.ndarray | None) -> str:
    """The id of the likest case of the patient of a rank, the query's own left out.

    At random the order is one and the same for a mask, so that ranks are different patients.
    """
    count, patient, own = asked.rank + 1, asked.patient, {path.resolve() for path in asked.files}
    while True:
        generator = torch.Generator().manual_seed(zlib.crc32(bits.tobytes()))
        matches = bank.query(bits, count, patient, strategy, image, generator=generator)
        if patient is None and own:
            # Who is asked for is in the bank: nobody is shown their own outcome.
            of_query = [m for m in matches if own & {path.resolve() for path in m.case.files.values()}]
            if of_query:
                patient = of_query[0].case.patient
                continue
        first: dict[str, str] = {}
        for match in matches:
            first.setdefault(match.case.patient, match.case.id)
        if len(first) > asked.rank:
            return list(first.values())[asked.rank]
        if len(matches) < count:
            whose = "" if patient is None else f" beside {patient}"
            number = f"number {asked.rank + 1} by likeness was asked for"
            raise InputError(f"{bank.folder} has cases of {len(first)} patients{whose}; {number}")
        count *= 2


def _union(mask: Volume, plan: Volume | None, grid: Grid) -> Volume:
    """On a grid: where there is tumour; with a plan where something is to be cut out as well."""
    seen = resample(mask, grid, mode="label", outside="zeros")
    if plan is None:
        return seen
    cut = resample(plan, grid, mode="label", outside="zeros")
    return seen.with_tensor(torch.maximum(seen.tensor, cut.tensor))


def _batch(method: Method, frame: Frame, matches: Sequence[Match], grid: Grid) -> dict[str, torch.Tensor]:
    """Images and masks of cases on the query's grid, that of an image or of a slice."""
    read_before: dict[Path, list[Volume]] = {}

    def seen(match: Match, column: str) -> torch.Tensor:
        case = match.case
        if column not in case.files:
            raise InputError(f"case {case.id!r} of the bank has no {column!r}; expected cases with {column}")
        path = case.files[column]
        if path not in read_before:
            read_before[path] = _views(frame, path, column in method.masks)
        there = read_before[path][case.slice or 0]
        return placed(there.tensor[0], there.grid, grid, column in method.masks)

    names = [name for name in method.inputs if name.startswith("case_")]
    return {name: torch.stack([seen(match, name.removeprefix("case_")) for match in matches]) for name in names}


def _views(frame: Frame, path: Path, mask: bool) -> list[Volume]:
    """An image as the method sees it, or its slices, each on its grid."""
    volume = read_labels(path) if mask else read(path)
    lattice = frame.lattice(volume.grid)
    if mask:
        batch = frame.enter_labels(volume.with_tensor((volume.tensor != 0).to(torch.uint8)), lattice)
    else:
        batch = frame.enter(volume, lattice)[0]
    plane = frame.plane if frame.across(lattice.dims) is not None else None
    empty = Volume(torch.zeros(1, 1, *lattice.shape), lattice)
    return [Volume(part[None], view.grid) for part, (_, view) in zip(batch, plane_views(empty, plane), strict=True)]
