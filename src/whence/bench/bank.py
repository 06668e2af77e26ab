"""The case bank's table: how long the nearest of many masks take to find, and what they weigh."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from whence.bench.rows import Row
from whence.errors import InputError
from whence.retrieval import Bank, BankSpace, Case, Entry, Manifest, build
from whence.retrieval import Row as Batch
from whence.space import Grid

SIDE, COUNT, QUERIES, BATCH = 128, 15, 20, 1000
# Queries that a bank in use has answered before those that are timed.
BEFORE = 300
SPACE = BankSpace(Grid.regular((SIDE, SIDE), 1.5))


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"The case bank{', smoke version' if quick else ''}: the {COUNT} nearest of so many tumours"


def notes(quick: bool) -> str:
    """What the columns mean."""
    return (
        f"Synthetic tumours: ellipses in {SIDE} x {SIDE} voxels, gathered about the middle. {QUERIES} queries that are "
        "none of them, in a process of its own; median time of a query, of exact search after a first one that reads "
        f"the masks from the disk, of approximate search after {BEFORE} others, which have had their part of the "
        "mapped graph; fresh: of the first ones after the bank is opened, each of which waits for pages. Exact: all "
        "masks, by USearch's Tanimoto distance, on all threads. "
        "Approximate: the graphs of the segments, on one. Recall: the share of the exact answer's masks that it finds; "
        "as near: the share of its answers whose IoU is at least that of the exact answer's last. NumPy: the same scan "
        "by bitwise_count of 64-bit words, on one thread. Memory: the process's peak, the mapped files' pages included."
    )


def rows(quick: bool) -> list[Row]:
    """Banks of several sizes."""
    counts = (3000,) if quick else (10_000, 100_000, 1_000_000)
    return [Row(f"{count:,} masks", {"count": count}) for count in counts]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Build the bank, ask it in a process of its own, and weigh it."""
    if not hasattr(np, "bitwise_count"):
        raise InputError(f"the scan beside the bank needs NumPy 2; got {np.__version__}")
    count = row.settings["count"]
    folder = data / f"bank_{count}"
    started = time.monotonic()
    bank = build(folder, Manifest(SPACE, approximate=True), _batches(count))
    built = time.monotonic() - started
    sizes = {
        name: sum((segment.folder / file).stat().st_size for segment in bank.segments) / 1e6
        for name, file in (("masks [MB]", "masks.npy"), ("index [MB]", "masks.usearch"))
    }
    del bank
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        asked = pool.submit(_asked, folder).result()
    return {
        "exact [ms]": f"{1e3 * asked['exact']:.1f}",
        "approximate [ms]": f"{1e3 * asked['approximate']:.2f}",
        "fresh [ms]": f"{1e3 * asked['fresh']:.1f}",
        "recall": f"{asked['recall']:.3f}",
        "as near": f"{asked['as near']:.3f}",
        "NumPy [ms]": f"{1e3 * asked['numpy']:.1f}",
        "NumPy / exact": f"{asked['numpy'] / asked['exact']:.1f}",
        "open [ms]": f"{1e3 * asked['open']:.1f}",
        "build [s]": f"{built:.0f}",
        **{name: f"{size:.0f}" for name, size in sizes.items()},
        "memory [MiB]": f"{asked['memory']:.0f}",
    }


def _asked(folder: Path) -> dict[str, float]:
    """Figures of queries, in a process of its own."""
    import resource
    import sys

    queries = _ellipses(QUERIES, np.random.default_rng(10**6))
    started = time.perf_counter()
    bank = Bank(folder)
    opened = time.perf_counter() - started
    others = _ellipses(BEFORE, np.random.default_rng(10**6 + 1))
    fresh = [_timed(bank, bits, True)[0] for bits in others]
    exact, near = ([_timed(bank, bits, way) for bits in queries] for way in (False, True))
    scans = [_scan(bank, bits) for bits in queries[:3]]
    for (_, found), (_, best) in zip(exact, scans, strict=False):
        assert np.allclose([iou for _, iou in found], best, atol=1e-5)
    pairs = [(found, best) for (_, found), (_, best) in zip(near, exact, strict=True)]
    shared = [len({case for case, _ in found} & {case for case, _ in best}) / len(best) for found, best in pairs]
    good = [np.mean([iou >= best[-1][1] - 1e-6 for _, iou in found]) for found, best in pairs]
    return {
        "open": opened,
        "exact": float(np.median([seconds for seconds, _ in exact[1:]])),
        "approximate": float(np.median([seconds for seconds, _ in near[1:]])),
        "numpy": float(np.median([seconds for seconds, _ in scans[1:]])),
        "fresh": float(np.median(fresh[:QUERIES])),
        "recall": float(np.mean(shared)),
        "as near": float(np.mean(good)),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def _timed(bank: Bank, bits: np.ndarray, approximate: bool) -> tuple[float, list[tuple[str, float]]]:
    started = time.perf_counter()
    found = bank.query(bits, COUNT, approximate=approximate)
    seconds = time.perf_counter() - started
    return seconds, [(f"{match.case.id} {match.case.slice}", match.iou) for match in found]


def _scan(bank: Bank, bits: np.ndarray) -> tuple[float, list[float]]:
    """The greatest overlaps by a plain scan."""
    started = time.perf_counter()
    query, best = bits.view(np.uint64), []
    for segment in bank.segments:
        masks = segment.masks.view(np.uint64)
        both = np.bitwise_count(masks & query).sum(axis=1, dtype=np.int32)
        either = np.bitwise_count(masks | query).sum(axis=1, dtype=np.int32)
        overlap = both / np.maximum(either, 1)
        best += overlap[np.argpartition(-overlap, min(COUNT, len(overlap) - 1))[:COUNT]].tolist()
    return time.perf_counter() - started, sorted(best, reverse=True)[:COUNT]


def _batches(count: int) -> Iterator[Batch]:
    for first in range(0, count, BATCH):
        yield Batch(f"batch{first // BATCH}", lambda first=first: _batch(first, min(BATCH, count - first)))  # type: ignore[misc]


def _batch(first: int, count: int) -> list[Entry]:
    masks = _ellipses(count, np.random.default_rng(first))
    cases = (Case(f"tumour{first + k}", f"patient{(first + k) // 20}", {}, {}, k) for k in range(count))
    return [Entry(case, bits) for case, bits in zip(cases, masks, strict=True)]


def _ellipses(count: int, random: np.random.Generator) -> np.ndarray:
    """Packed masks (count, width) of ellipses."""
    points = np.arange(SIDE, dtype=np.float32)
    centres = random.normal(SIDE / 2, SIDE / 7, (2, count, 1, 1)).clip(8, SIDE - 8).astype(np.float32)
    size = np.exp(random.normal(2.5, 0.4, (1, count, 1, 1)))
    radii = (size * np.exp(random.normal(0, 0.2, (2, count, 1, 1)))).astype(np.float32)
    angle = random.uniform(0, np.pi, (count, 1, 1)).astype(np.float32)
    down, across = points[:, None] - centres[0], points[None] - centres[1]
    along = (down * np.cos(angle) + across * np.sin(angle)) / radii[0]
    aside = (across * np.cos(angle) - down * np.sin(angle)) / radii[1]
    bits = np.packbits((along**2 + aside**2 < 1).reshape(count, -1), axis=1)
    return np.pad(bits, ((0, 0), (0, SPACE.width - bits.shape[1])))
