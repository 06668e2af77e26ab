"""Banks made and changed. One writer at a time, by a lock that the system gives back however the process ends."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from whence.errors import InputError
from whence.io.atomic import unwritable
from whence.retrieval.bank import Bank
from whence.retrieval.manifest import NAME, UNFINISHED, Manifest
from whence.retrieval.segment import Case, write_segment

Progress = Callable[[int], None]
# Bytes of masks in a segment that is written at once, and how many segments a bank has before they are joined.
LARGEST, MOST = 512_000_000, 16
SEGMENT = re.compile(r"segment-[0-9a-f]{12}")
# Seconds of work that a kill may cost a build.
PATIENCE = 60.0


@dataclass(frozen=True)
class Entry:
    """A case with its packed mask (width,) uint8, and its image's embedding (n,) where the bank has them."""

    case: Case
    bits: np.ndarray
    image: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, and what reads its cases (a volume's slices are many)."""

    id: str
    load: Callable[[], Sequence[Entry]]


def build(
    folder: str | Path,
    settings: Manifest,
    rows: Iterable[Row],
    progress: Progress | None = None,
    chunk: int | None = None,
) -> Bank:
    """Make a bank of rows, in place of the one that is there. Stopped and started again it goes on.

    ``settings`` is a manifest without segments; whether a build that was stopped is the same one its ``origin`` says.
    ``progress`` is told of each row. A segment has ``chunk`` cases, or what a minute brings, half a gigabyte at most.
    Raises InputError where another process writes there, or the folder cannot be written.
    """
    folder = Path(folder)
    with _writing(folder, new=True):
        begun = _unfinished(folder, settings)
        for names, done in _segments(folder, begun, rows, progress, chunk):
            begun = replace(begun, segments=(*begun.segments, *names), done=(*begun.done, *done))
            begun.write(folder, UNFINISHED)
        if not begun.segments:
            raise InputError(f"no case for a bank in {folder}; expected rows whose masks are large enough")
        replace(begun, done=()).write(folder)
        (folder / UNFINISHED).unlink(missing_ok=True)
        if _crowded(folder):
            _join(folder, chunk)
        _tidy(folder)
        return Bank(folder)


def add(folder: str | Path, rows: Iterable[Row], progress: Progress | None = None, chunk: int | None = None) -> Bank:
    """Add rows to a bank, all or none. Raises InputError where one is there already."""
    folder = Path(folder)
    with _writing(folder):
        bank = Bank(folder)
        known = {case.id for case in bank}
        names = list(bank.manifest.segments)
        for more, _ in _segments(folder, bank.manifest, _new(rows, known, folder), progress, chunk):
            names += more
        replace(bank.manifest, segments=tuple(names)).write(folder)
        if _crowded(folder):
            _join(folder, chunk)
        _tidy(folder)
        return Bank(folder)


def remove(folder: str | Path, ids: Sequence[str]) -> Bank:
    """Take cases out of a bank. Raises InputError, and takes none, where one is not there."""
    folder = Path(folder)
    with _writing(folder):
        bank = Bank(folder)
        ids = set(ids)
        unknown = sorted(ids - {case.id for case in bank})
        if unknown:
            raise InputError(f"{folder} has no case {unknown[0]!r}; expected ids of cases that it has")
        gone = {
            name: tuple(row for row, case in enumerate(segment.cases) if case.id in ids)
            for name, segment in zip(bank.manifest.segments, bank.segments, strict=True)
        }
        before = bank.manifest.removed
        together = {name: tuple(sorted({*rows, *before.get(name, ())})) for name, rows in gone.items()}
        replace(bank.manifest, removed={name: rows for name, rows in together.items() if rows}).write(folder)
        bank = Bank(folder)
        # A query asks a segment for as many cases more as it has lost.
        if len(bank) and sum(map(len, bank.manifest.removed.values())) >= len(bank):
            _join(folder, None)
            _tidy(folder)
            bank = Bank(folder)
        return bank


@contextmanager
def _writing(folder: Path, new: bool = False) -> Iterator[None]:
    if not new:
        Manifest.read(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is writing the bank {folder}; try again when it has finished") from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _unfinished(folder: Path, settings: Manifest) -> Manifest:
    """What an earlier build with the same settings has left, or the settings to begin with."""
    if not (folder / UNFINISHED).is_file():
        return settings
    left = Manifest.read(folder, UNFINISHED)
    return left if replace(left, segments=(), done=()) == settings else settings


def _segments(
    folder: Path, settings: Manifest, rows: Iterable[Row], progress: Progress | None, chunk: int | None
) -> Iterator[tuple[list[str], list[str]]]:
    """Write rows as segments of up to ``chunk`` cases and a row; yields their names, and the rows that are in."""
    most = chunk or max(1, LARGEST // settings.space.width)
    done, entries, ids = set(settings.done), [], []
    since = time.monotonic()
    for number, row in enumerate(rows, start=1):
        if row.id not in done:
            entries += row.load()
            ids.append(row.id)
        if progress is not None:
            progress(number)
        late = chunk is None and entries and time.monotonic() - since > PATIENCE
        if len(entries) >= most or late:
            yield [_segment(folder, settings, entries)], ids
            entries, ids, since = [], [], time.monotonic()
    if entries:
        yield [_segment(folder, settings, entries)], ids


def _segment(folder: Path, settings: Manifest, entries: Sequence[Entry]) -> str:
    name = f"segment-{secrets.token_hex(6)}"
    images = np.stack([_embedding(entry) for entry in entries]) if settings.images else None
    masks = np.stack([entry.bits for entry in entries])
    try:
        (folder / name).mkdir()
        write_segment(folder / name, folder, [entry.case for entry in entries], masks, images, settings.approximate)
    except OSError as error:
        raise unwritable(folder, error) from error
    return name


def _embedding(entry: Entry) -> np.ndarray:
    if entry.image is None:
        raise InputError(f"case {entry.case.id!r} has no image; the bank compares images")
    return entry.image.astype(np.float32)


def _new(rows: Iterable[Row], known: set[str], folder: Path) -> Iterator[Row]:
    for row in rows:
        if row.id in known:
            raise InputError(f"{folder} has a case {row.id!r} already; remove it first, or give this one another id")
        yield row


def _crowded(folder: Path) -> bool:
    """Whether a bank has so many small segments that they are better joined; large ones stay as they are."""
    return sum(segment.size < LARGEST // 2 for segment in Bank(folder).segments) > MOST


def _join(folder: Path, chunk: int | None) -> None:
    """Write what a bank holds as few segments, without what was removed."""
    bank = Bank(folder)
    settings = replace(bank.manifest, segments=(), removed={})
    names: list[str] = []
    for found, _ in _segments(folder, settings, _rows_of(bank), None, chunk):
        names += found
    replace(settings, segments=tuple(names)).write(folder)


def _rows_of(bank: Bank) -> Iterator[Row]:
    for name, segment in zip(bank.manifest.segments, bank.segments, strict=True):
        gone = set(bank.manifest.removed.get(name, ()))
        for number, case in enumerate(segment.cases):
            if number not in gone:
                image = None if segment.images is None else segment.images[number]
                entry = Entry(case, segment.masks[number], image)
                yield Row(case.id, lambda entry=entry: [entry])  # type: ignore[misc]


def _tidy(folder: Path) -> None:
    """Take away segments that nothing names: of a bank before, or of a writer that was stopped."""
    named = {
        segment
        for file in (NAME, UNFINISHED)
        if (folder / file).is_file()
        for segment in Manifest.read(folder, file).segments
    }
    for path in folder.glob("segment-*"):
        # By our own names alone: what a user calls a segment stays.
        if SEGMENT.fullmatch(path.name) and path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
