"""Data sets written under a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whence.data.phantom import write_phantom
from whence.data.readers import reader
from whence.errors import InputError
from whence.train.callbacks import progress_bar
from whence.train.run import check_folder


def write_phantom_with_bar(
    kind: str, n: int, size: int, out: Path, dims: int = 2, seed: int = 0, jobs: int = 1, **options: str
) -> Path:
    """Write a phantom under a progress bar; returns its pairs.csv."""
    check_folder(out)
    with progress_bar() as bar:
        task = bar.add_task(f"phantom {kind}", total=n, note="")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done)

        return write_phantom(kind, n, size, out, dims, seed, jobs, progress, **options)


def convert_with_bar(layout: str, folder: Path, out: Path, test: Sequence[str] = (), sequence: str = "") -> Path:
    """Convert a published data set under a progress bar; returns its pairs.csv."""
    module = reader(layout)
    if sequence and not hasattr(module, "SEQUENCES"):
        raise InputError(f"the layout {layout!r} has one sequence; expected no other, got {sequence!r}")
    chosen = {"sequence": sequence} if sequence else {}
    check_folder(out)
    with progress_bar() as bar:
        task = bar.add_task(f"reading {layout}", total=None, note="")
        return module.convert(
            folder, out, test, progress=lambda done, total: bar.update(task, completed=done, total=total), **chosen
        )
