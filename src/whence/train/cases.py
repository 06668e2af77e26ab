"""Past cases for a method that looks at them: the run's own bank, and what was found in it for each sample."""

from __future__ import annotations

from pathlib import Path

import torch

from whence.data import PairDataset
from whence.data.frame import Frame, plane_views, single_slice_plane
from whence.data.pairs import Pair, PairsTable
from whence.data.retrieved import LAPS, RetrievedDataset
from whence.errors import InputError
from whence.io import read, read_labels
from whence.models import Retrieval
from whence.retrieval import Bank, thumbnail
from whence.train.bank import BankConfig, bank_from, origin
from whence.train.run import BANK


def bank_of(run: Path, rows: PairsTable, frame: Frame) -> Bank:
    """The bank of a run, of the rows that it is trained on: the one that is there if it was built of them."""
    first = read_labels(rows.rows[0].path("source_mask"))
    plane = single_slice_plane(first.grid) or (frame.plane if first.dims > frame.dims else None)
    config = BankConfig(plane=plane)
    if (run / BANK / "bank.json").is_file() and Bank(run / BANK).manifest.origin == origin(rows, config):
        return Bank(run / BANK)
    return bank_from(rows, run / BANK, config)


def with_cases(
    queries: PairDataset, rows: PairsTable, pool: PairDataset, bank: Bank, how: Retrieval, seed: int
) -> RetrievedDataset:
    """Samples joined with those of ``pool`` that are the cases most like them, never of the same patient.

    Raises InputError where none is found for any.
    """
    places = {case: place for place, case in enumerate(zip(pool.ids, pool.slices, strict=True))}
    by_id, found = {row.id: row for row in rows}, []
    views: dict[str, dict[int | None, list[int]]] = {}
    for number, (name, at) in enumerate(zip(queries.ids, queries.slices, strict=True)):
        if name not in views:
            views = {name: _similar(by_id[name], bank, how, places, seed + number)}
        found.append(views[name].get(at, []))
    if not any(found):
        raise InputError(f"{bank.folder} has no case for any row of {rows.path}; expected tumours of other patients")
    return RetrievedDataset(queries, pool, found, seed)


def _similar(
    row: Pair, bank: Bank, how: Retrieval, places: dict[tuple[str, int | None], int], seed: int
) -> dict[int | None, list[int]]:
    """Of each view of a row that shows a tumour the places of the cases most like it."""
    plane, grid = bank.manifest.plane, bank.manifest.space.grid
    patient = str(row.conditions.get("patient", row.id))
    masks = list(plane_views(read_labels(row.path("source_mask")), plane))
    images = list(plane_views(read(row.path("source")), plane)) if how.strategy == "image" else []
    found = {}
    for place, (index, mask) in enumerate(masks):
        if not bool(mask.tensor.any()):
            continue
        bits = bank.manifest.space.pack(mask, str(row.path("source_mask")))
        image = thumbnail(images[place][1], grid) if images else None
        generator = torch.Generator().manual_seed((seed * 1009 + place) % 2**31)
        # Chance knows no most similar: as many as there are laps.
        top = LAPS if how.strategy == "random" else how.top
        matches = bank.query(bits, top, patient, how.strategy, image, generator=generator)
        cases = [(match.case.id, match.case.slice) for match in matches]
        found[index] = [places[case] for case in cases if case in places]
    return found
