"""Many pairs registered: over processes or a Dask cluster, each finished pair kept, each bad one reported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from whence.data.pairs import Pair, read_pairs
from whence.errors import InputError
from whence.io import load_json, replacing
from whence.memory import keep_freed_memory
from whence.train.callbacks import progress_bar
from whence.train.register import RECORD, Images, RegisterConfig, made_of, register_files

TABLE = "registrations.csv"
# What a worker is given: id, files, folder, options, threads.
Task = tuple[str, Images, Path, RegisterConfig, int]


def register_table(
    table: str | Path, out: str | Path, config: RegisterConfig, jobs: int = 1, scheduler: str | None = None
) -> Path:
    """Register the rows of a pairs.csv, source to target, each into ``out/<id>``; returns ``out/registrations.csv``.

    ``target_brain`` and ``source_brain``, where a row names them, are the masks. Pairs that an earlier call
    finished, with the same files and options, are not done again. ``jobs`` processes share the machine's
    cores; ``scheduler`` is the address of a Dask cluster that sees the same files.
    Raises InputError, after all others are done, where a pair failed.
    """
    if jobs < 1:
        raise InputError(f"--jobs is at least 1; got {jobs}")
    config.settings()
    rows, out = read_pairs(table), Path(out)
    found: dict[str, dict[str, Any]] = {}
    tasks: list[Task] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    for row in rows:
        images, folder = _images(row), out / row.id
        kept = _finished(folder, made_of(images, config))
        if kept is None:
            tasks.append((row.id, images, folder, config, 0 if jobs == 1 and scheduler is None else threads))
        else:
            found[row.id] = kept
    with progress_bar() as bar:
        task = bar.add_task("registering", total=len(rows), completed=len(found), note="")
        for record in _run(tasks, jobs, scheduler):
            found[record["id"]] = record
            bar.update(task, advance=1, note=f"{record['id']} {record['state']}")
            _write([found[row.id] for row in rows if row.id in found], out / TABLE)
    _write([found[row.id] for row in rows], out / TABLE)
    failed = [record for record in found.values() if record["state"] == "failed"]
    if failed:
        raise InputError(
            f"{len(failed)} of {len(rows)} pairs failed ({out / TABLE} lists them), the first, {failed[0]['id']!r}, "
            f"because: {failed[0]['error']}"
        )
    return out / TABLE


def _images(row: Pair) -> Images:
    return Images(row.path("target"), row.path("source"), row.files.get("target_brain"), row.files.get("source_brain"))


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of a finished folder made of the same."""
    try:
        kept = load_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    except InputError:
        return None
    if not isinstance(kept, dict) or kept.get("made_of") != key:
        return None
    return _record(folder.name, "done", kept)


def _record(name: str, state: str, figures: dict[str, Any], error: str = "") -> dict[str, Any]:
    return {
        "id": name,
        "state": state,
        "energy": figures.get("energy"),
        "folded": figures.get("folded"),
        "seconds": figures.get("seconds"),
        "error": error,
    }


def _one(task: Task) -> dict[str, Any]:
    """Register a pair; whatever goes wrong with it stays with it."""
    name, images, folder, config, threads = task
    if threads:
        import torch

        torch.set_num_threads(threads)
    try:
        return _record(name, "done", register_files(images, folder, config, name))
    except Exception as error:  # one pair's fault, whatever it is, must not cost the others
        words = " ".join(str(error).split()) or type(error).__name__
        return _record(
            name, "failed", {}, words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"
        )


def _run(tasks: list[Task], jobs: int, scheduler: str | None) -> Iterator[dict[str, Any]]:
    if scheduler is not None:
        return _on_cluster(tasks, scheduler)
    return map(_one, tasks) if jobs == 1 or len(tasks) < 2 else _in_processes(tasks, jobs)


def _in_processes(tasks: list[Task], jobs: int) -> Iterator[dict[str, Any]]:
    """Records as they come; a process that dies takes its pool along, whose pairs then go one by one."""
    left = {task[0]: task for task in tasks}
    with _pool(min(jobs, len(tasks))) as pool:
        for future in as_completed([pool.submit(_one, task) for task in tasks]):
            try:
                record = future.result()
            except BrokenProcessPool:
                continue
            del left[record["id"]]
            yield record
    for name, task in left.items():
        with _pool(1) as pool:
            try:
                yield pool.submit(_one, task).result()
            except BrokenProcessPool:
                yield _record(name, "failed", {}, "the process died, perhaps for want of memory")


def _pool(jobs: int) -> ProcessPoolExecutor:
    # A fork would inherit threads that no longer run.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=keep_freed_memory)


def _on_cluster(tasks: list[Task], scheduler: str) -> Iterator[dict[str, Any]]:
    try:
        from dask.distributed import Client
        from dask.distributed import as_completed as completed
    except ImportError as error:
        raise InputError("--scheduler needs Dask: python -m pip install 'whence[cluster]'") from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"found no Dask scheduler at {scheduler}; expected an address such as tcp://host:8786"
        ) from error
    with client:
        futures = {client.submit(_one, task, pure=False, retries=1): task[0] for task in tasks}
        for future in completed(list(futures)):
            error = future.exception()
            yield future.result() if error is None else _record(futures[future], "failed", {}, f"the worker: {error}")


def _write(records: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    with replacing(path) as temporary:
        pd.DataFrame(records).to_csv(temporary, index=False, lineterminator="\n")
