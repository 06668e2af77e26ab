"""Many pairs registered: over processes or a Dask cluster, each finished pair kept, each bad one reported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from whence.data.pairs import Pair, PairsTable, read_pairs
from whence.errors import InputError
from whence.io import load_json, replacing
from whence.memory import keep_freed_memory
from whence.train.callbacks import progress_bar
from whence.train.register import RECORD, Images, RegisterConfig, check_similarities, made_of, register_files
from whence.train.run import check_folder, forget_page
from whence.train.similarity import find_similarity

TABLE = "registrations.csv"
# Threads of a task whose worker knows how many it has.
ON_THE_WORKER = -1
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
    # What is wrong for every row is said once, before any of them is lost to it.
    check_similarities(config)
    for name in (config.similarity, config.affine_similarity):
        if Path(name).is_dir():
            find_similarity(name)
    # Workers elsewhere have another working directory.
    out, faults = Path(out).resolve(), {}
    check_folder(out)
    config = replace(config, **{name: _absolute(getattr(config, name)) for name in ("similarity", "affine_similarity")})
    rows = read_pairs(table, faults=faults)
    found: dict[str, dict[str, Any]] = {name: _record(name, "failed", {}, why) for name, why in faults.items()}
    tasks: list[Task] = []
    threads = ON_THE_WORKER if scheduler is not None else max(1, (os.cpu_count() or 1) // jobs)
    for row in rows:
        images, folder = _images(row), out / row.id
        kept = _finished(folder, made_of(images, config))
        if kept is None:
            tasks.append((row.id, images, folder, config, 0 if jobs == 1 and scheduler is None else threads))
        else:
            found[row.id] = kept
    with progress_bar() as bar:
        task = bar.add_task("registering", total=len(rows) + len(faults), completed=len(found), note="")
        for record in _run(tasks, jobs, scheduler):
            found[record["id"]] = record
            if record["state"] == "done":
                forget_page(out)
            bar.update(task, advance=1, note=f"{record['id']} {record['state']}")
            _write(_in_order(found, rows), out / TABLE)
    _write(_in_order(found, rows), out / TABLE)
    failed = [record for record in found.values() if record["state"] == "failed"]
    if failed:
        raise InputError(
            f"{len(failed)} of {len(found)} pairs failed ({out / TABLE} lists them), the first, {failed[0]['id']!r}, "
            f"because: {failed[0]['error']}"
        )
    return out / TABLE


def _absolute(similarity: str) -> str:
    """A run's folder wherever one stands; other names as they are."""
    return str(Path(similarity).resolve()) if Path(similarity).is_dir() else similarity


def _in_order(found: dict[str, dict[str, Any]], rows: PairsTable) -> list[dict[str, Any]]:
    """Records in the order of the table, those that could not be read last."""
    known = [row.id for row in rows if row.id in found]
    return [found[name] for name in (*known, *(name for name in found if name not in set(known)))]


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
        "similarity": figures.get("similarity"),
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

        torch.set_num_threads(_share_of_this_worker() if threads == ON_THE_WORKER else threads)
    try:
        return _record(name, "done", register_files(images, folder, config, name))
    except Exception as error:  # one pair's fault, whatever it is, must not cost the others
        words = " ".join(str(error).split()) or type(error).__name__
        return _record(
            name, "failed", {}, words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"
        )


def _share_of_this_worker() -> int:
    from dask.distributed import get_worker

    return max(1, (os.cpu_count() or 1) // max(1, get_worker().state.nthreads))


def _run(tasks: list[Task], jobs: int, scheduler: str | None) -> Iterator[dict[str, Any]]:
    if scheduler is not None:
        return _on_cluster(tasks, scheduler)
    return map(_one, tasks) if jobs == 1 or len(tasks) < 2 else _in_processes(tasks, jobs)


def _in_processes(tasks: list[Task], jobs: int) -> Iterator[dict[str, Any]]:
    """Records as they come; a process that dies takes its pool along, whose pairs then go one by one."""
    left = {task[0]: task for task in tasks}
    with _pool(min(jobs, len(tasks))) as pool:
        try:
            for future in as_completed([pool.submit(_one, task) for task in tasks]):
                try:
                    record = future.result()
                except BrokenProcessPool:
                    continue
                del left[record["id"]]
                yield record
        finally:
            # Who stops the cohort does not wait for the pairs that have not begun.
            pool.shutdown(cancel_futures=True)
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
            lost = "it was cancelled" if future.cancelled() else future.exception()
            yield future.result() if lost is None else _record(futures[future], "failed", {}, f"the worker: {lost}")


def _write(records: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    with replacing(path) as temporary:
        pd.DataFrame(records).to_csv(temporary, index=False, lineterminator="\n")
