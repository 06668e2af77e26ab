"""Rows of a bench: kept when finished, so that a table resumes and one row can be run again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from whence import __version__
from whence.bench import find_table
from whence.bench.code import ROOT, fingerprint
from whence.errors import InputError
from whence.io import load_json, replacing, save_json
from whence.kernels.dispatch import VARIABLE

# Whose versions figures may depend on, where they are installed.
PEERS = (
    "antspyx",
    "convexAdam",
    "diffusers",
    "lightning",
    "monai",
    "numba",
    "numpy",
    "SimpleITK",
    "torch",
    "voxelmorph",
)


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, its settings, and the cells that others published."""

    name: str
    settings: dict[str, Any]
    published: dict[str, Any] = field(default_factory=dict)


def run_table(name: str, out: str | Path, quick: bool = False, only: Sequence[str] = ()) -> Path:
    """Measure the rows of a table that are not there yet and write ``table.csv`` and ``table.md`` in ``out``.

    A finished row is known by its settings, the code it depends on, the number of threads, the kernels that
    ``WHENCE_KERNELS`` names and the versions of the libraries. ``only`` names the rows to measure, again if need be;
    the table then holds them and those measured before. ``quick`` is a smoke version of minutes, which lies in
    ``out/quick``. Returns the path of ``table.md``.
    """
    module, out = find_table(name), Path(out)
    if quick:
        out = out / "quick"
    rows = module.rows(quick)
    unknown = [n for n in only if n not in {row.name for row in rows}]
    if unknown:
        raise InputError(f"table {name!r} has no row {unknown[0]!r}; it has {', '.join(row.name for row in rows)}")
    code, place = fingerprint(Path(str(module.__file__))), _place()
    found = []
    for row in rows:
        key = _key(row, code, place)
        kept = out / "rows" / f"{key}.json"
        if only and row.name not in only and not kept.is_file():
            continue
        if not kept.is_file() or row.name in only:
            if row.name in only:
                shutil.rmtree(out / "work" / key, ignore_errors=True)
            started = time.monotonic()
            # What rows share is made anew by other code as the rows are.
            cells = module.measure(row, out / "data" / code[:12], out / "work" / key)
            facts = {"row": row.name, "settings": row.settings, "cells": cells}
            facts |= {"seconds": round(time.monotonic() - started, 1), "commit": _commit()}
            save_json({**facts, "date": date.today().isoformat(), **place}, kept)
        found.append((row, load_json(kept)))
        _write(out, name, module, found, quick)
    if hasattr(module, "draw"):
        import pandas as pd

        module.draw(pd.read_csv(out / "table.csv", keep_default_na=False), out)
    return out / "table.md"


def mean_cell(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of a column's values."""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.pstdev(values):.{digits}f}"


@contextmanager
def kernel_choice(name: str) -> Iterator[None]:
    """Within the block ``WHENCE_KERNELS`` has this value."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _write(out: Path, name: str, module: ModuleType, found: list[tuple[Row, dict[str, Any]]], quick: bool) -> None:
    import pandas as pd

    records = [
        {"row": row.name, **kept["cells"], **{f"{k} (published)": v for k, v in row.published.items()}}
        for row, kept in found
    ]
    frame = pd.DataFrame(records)
    with replacing(out / "table.csv") as temporary:
        frame.to_csv(temporary, index=False)
    lines = [f"### {module.title(quick)}", ""]
    if hasattr(module, "summary"):
        lines += [_markdown(module.summary(frame)), ""]
    lines += [_markdown(frame), ""]
    minutes = sum(kept["seconds"] for _, kept in found) / 60

    def all_of(fact: str) -> str:
        return ", ".join(sorted({str(kept[fact]) for _, kept in found}))

    versions = {f"{peer} {number}" for _, kept in found for peer, number in kept["versions"].items()}
    lines.append(
        f"`whence bench {name}{' --quick' if quick else ''}`, commit {all_of('commit')}, {all_of('threads')} threads "
        f"on {all_of('machine')}, {minutes:.0f} minutes, {all_of('date')}; "
        f"{', '.join(sorted(versions, key=str.lower))}. "
        f"{module.notes(quick)}"
    )
    with replacing(out / "table.md") as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _markdown(frame: Any) -> str:
    names = list(frame.columns)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for record in frame.to_dict("records"):
        cells = ["" if value is None or value != value else str(value) for value in record.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _place() -> dict[str, Any]:
    """What figures depend on beside the code: threads, the kernels named, the machine and the libraries' versions."""
    import torch

    found = {}
    for peer in PEERS:
        with suppress(PackageNotFoundError):
            found[peer] = version(peer)
    return {
        "threads": torch.get_num_threads(),
        "kernels": os.environ.get(VARIABLE, ""),
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()})",
        "versions": found,
    }


def _key(row: Row, code: str, place: dict[str, Any]) -> str:
    text = json.dumps([row.name, row.settings, code, place], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _commit() -> str:
    """Short hash of the checkout, with a + where files differ from it; the version outside of one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    return f"{head}{'+' if git('status', '--porcelain', '--', '.') else ''}" if head else __version__
