"""What a method is trained on: the rows of a table that suit it, as pairs or as images of two domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from whence.data import PairDataset, read_pairs, survey
from whence.data.dataset import Progress
from whence.data.frame import Frame
from whence.data.neighbours import NeighbourDataset
from whence.data.pairs import PairsTable
from whence.data.retrieved import RetrievedDataset
from whence.data.unpaired import UnpairedDataset
from whence.errors import InputError
from whence.models import Method
from whence.retrieval import Bank
from whence.train.cases import with_cases
from whence.train.settings import TrainConfig

Samples = PairDataset | UnpairedDataset | RetrievedDataset | NeighbourDataset


def training_table(
    path: str | Path, method: type[Method], labels: bool = False, called: Mapping[str, str] | None = None
) -> PairsTable:
    """The rows of a table that a method can learn from.

    Of images of two domains (a column ``domain``) an ``unpaired`` method takes all, any other the pairs among them:
    rows of the source's domain that name what it needs. With ``labels`` every image needs its labels' column as well.
    ``called``: what the table calls columns of other names.
    Raises InputError where nothing is left to train on.
    """
    columns = (*(_with_labels(method.columns) if labels else method.columns), *method.masks)
    if "domain" not in _header(path):
        return read_pairs(path, columns, called=called)
    table = read_pairs(path, columns=("source", "source_labels") if labels else ("source",), called=called)
    if _unpaired(table, method):
        return table
    pairs = table.domain("source").complete(columns)
    if not any(row.split == "train" for row in pairs):
        raise InputError(
            f"{method.name} learns from rows with {' and '.join(columns)}; {path} holds images of domains, "
            "and no row to train on names them all, or none is of the target's"
        )
    return pairs


def frame_of(rows: PairsTable, train: TrainConfig) -> Frame:
    """The frame of what is trained on, as the options have it; of two domains it holds the largest image of either."""
    frame = survey(rows.domain("source"), train.dims, train.plane, train.size, train.spacing, train.rescale)
    targets = rows.domain("target")
    if not targets.rows:
        return frame
    other = survey(targets, frame.dims, train.plane, train.size, frame.spacing)
    shape = tuple(map(max, frame.shape, other.shape))
    return replace(frame, shape=shape, target_channels=other.source_channels)


def samples_of(
    rows: PairsTable,
    frame: Frame,
    method: type[Method] | Method,
    seed: int = 0,
    progress: Progress | None = None,
    bank: Bank | None = None,
    pool: PairDataset | None = None,
) -> Samples:
    """The samples of a split: pairs, or sources joined with targets of other people; with what a method derives.

    Of a method that looks at past cases each with one of ``pool``, its own rows if there is none, found in ``bank``; of
    one that looks at neighbours each with some of ``pool``.
    """
    common: dict[str, Any] = {"progress": progress}
    if isinstance(method, Method):
        common |= {"derive": method.derive, "labels": method.sees_labels(method.config)}
        common |= {"told": method.attributes.vector} if method.attributes is not None else {}
    if not _unpaired(rows, method):
        pairs = PairDataset(rows, frame, columns=method.columns, optional=method.optional, masks=method.masks, **common)
        how = method.retrieval(method.config) if isinstance(method, Method) else None
        if how is not None and bank is not None:
            return with_cases(pairs, rows, pool or pairs, bank, how, seed)
        near = method.neighbourhood(method.config) if isinstance(method, Method) else None
        if near is None or not isinstance(method, Method) or method.attributes is None:
            return pairs
        nearness = partial(method.attributes.nearness, width=near.width)
        return NeighbourDataset(pairs, pool or pairs, near.count, nearness, near.dropped, seed)
    own = replace(frame, source_channels=frame.target_channels)
    sources = PairDataset(rows.domain("source"), frame, columns=("source",), optional=(), **common)
    targets = PairDataset(rows.domain("target"), own, columns=("source",), optional=(), **common)
    return UnpairedDataset(sources, targets, seed)


def held_out_of(
    table: PairsTable,
    frame: Frame,
    method: Method,
    seed: int = 0,
    bank: Bank | None = None,
    beside: Samples | None = None,
) -> Samples | None:
    """The samples of split ``val``, past cases and neighbours from those ``beside`` them.

    None without any, and where an unpaired method finds one domain of two there.
    """
    if not any(row.split == "val" for row in table):
        return None
    rows = table.split("val")
    if _unpaired(table, method) and not (rows.domain("source").rows and rows.domain("target").rows):
        return None
    pool = beside.pool if isinstance(beside, RetrievedDataset | NeighbourDataset) else None
    return samples_of(rows, frame, method, seed, bank=bank, pool=pool)


def _unpaired(table: PairsTable, method: type[Method] | Method) -> bool:
    """Whether a method is to learn from images that are no pairs: it can, and both domains are there."""
    return method.unpaired and bool(table.domain("target").rows)


def _with_labels(columns: tuple[str, ...]) -> tuple[str, ...]:
    return (*columns, *(f"{column}_labels" for column in columns))


def _header(path: str | Path) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return [name.strip() for name in file.readline().split(",")]
    except OSError:
        return []
