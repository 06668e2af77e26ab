"""A data set of phantoms on disk: NIfTI files, points and the pairs table."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from whence.data.pairs import LABEL_NAMES, write_pairs
from whence.data.phantom import phantom
from whence.errors import InputError
from whence.field import Displacement
from whence.space import Volume

SETTINGS = "phantom.yaml"
TABLE = "pairs.csv"
SMALLEST = 32
# Where a case's facts name the files that it has not.
ABSENT = "absent"
REFERENCE = "reference"


def write_phantom(
    kind: str,
    n: int,
    size: int,
    out: str | Path,
    dims: int = 2,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    **options: str,
) -> Path:
    """Write cases 0..n-1 of a kind under ``out`` and return the path of its ``pairs.csv``.

    One folder a case, ``size`` voxels a side, ``dims`` 2 or 3; the table comes last, its paths relative
    to it. An interrupted run goes on where it stopped. The last eighth of the cases (50 at most) is the
    test split, three fifths as many before them are for validation. ``jobs`` above 1 start as many
    processes (the bytes stay the same); ``progress`` is called with (done, n). ``options`` are the kind's own.
    Raises InputError for settings that make no sense and for a folder that holds a data set of other settings or
    another table.
    """
    from whence.io import save_yaml

    module = phantom(kind)
    _check(n, size, dims, seed, jobs)
    options = _options(kind, getattr(module, "OPTIONS", {}), options)
    out = Path(out)
    settings = {"kind": kind, "version": module.VERSION, "n": n, "size": size, "dims": dims, "seed": seed, **options}
    if not _same(out, settings):
        save_yaml(settings, out / SETTINGS)
    # A kind of several anatomies has a function for what others have as a constant.
    names = module.label_names(**options) if hasattr(module, "label_names") else module.LABEL_NAMES
    save_yaml(names, out / LABEL_NAMES)

    rows: dict[int, dict[str, Any]] = {}
    for index, row in _written(settings, n, out, jobs):
        rows[index] = row
        if progress is not None:
            progress(len(rows), n)
    first = ("id", "source", "target", "split")
    found = [rows[index] | {"split": split} for index, split in enumerate(splits(n))]
    for name in module.references() if hasattr(module, "references") else ():
        make = partial(module.make_reference, name, size, dims)
        found.append(_stored(module, make, name, out) | {"split": REFERENCE})
    found = [{name: row.get(name, "") for name in first} | row for row in found]
    tables = module.tables(found) if hasattr(module, "tables") else {TABLE: found}
    # The table that says that all is done comes last.
    for name in sorted(tables, key=lambda name: name == TABLE):
        write_pairs(out / name, tables[name])
    return out / TABLE


def splits(n: int) -> list[str]:
    """Split of each of n cases: train, then val, then test."""
    test = min(50, max(n // 8, 1 if n > 1 else 0))
    validation = max(test * 3 // 5, 1 if n > 2 else 0)
    return ["train"] * (n - validation - test) + ["val"] * validation + ["test"] * test


def write_case(settings: dict[str, Any], index: int, out: Path) -> dict[str, Any]:
    """Write one case, unless all its files are there, and return its row of the table."""
    module = phantom(settings["kind"])
    chosen = {name: settings[name] for name in getattr(module, "OPTIONS", {})}
    about = (settings["seed"], index, settings["size"], settings["dims"])
    return _stored(module, partial(module.make_case, *about, **chosen), _name(index), out)


def _stored(module: ModuleType, make: Callable[[], Any], name: str, out: Path) -> dict[str, Any]:
    """The row of a case's folder, which is written where it is not complete."""
    from whence.io import load_yaml, save_yaml

    folder = out / name
    done = folder / "case.yaml"
    paths = {column: folder / name for column, name in module.FILES.items()}
    facts = load_yaml(done) if done.exists() else None
    if facts is None or not all(path.exists() for column, path in paths.items() if column not in facts.get(ABSENT, ())):
        columns = module.columns(make())
        things = {column: columns.pop(column) for column in paths}
        for column, thing in things.items():
            if thing is not None:
                _save(thing, paths[column])
        facts = columns | {ABSENT: [column for column, thing in things.items() if thing is None]}
        save_yaml(facts, done)
    absent = facts.pop(ABSENT, ())
    named = paths | {column: paths[other] for column, other in module.ALSO.items()}
    files = {c: path.relative_to(out).as_posix() for c, path in named.items() if c not in absent}
    return {"id": name} | files | facts


def _written(settings: dict[str, Any], n: int, out: Path, jobs: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if min(jobs, n) == 1:
        for index in range(n):
            yield index, write_case(settings, index, out)
        return
    # Fresh processes: a forked one would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, n), mp_context=context, initializer=_one_thread) as pool:
        waiting = {pool.submit(write_case, settings, index, out): index for index in range(n)}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _save(thing: Volume | Displacement | np.ndarray, path: Path) -> None:
    from whence.io import Points, write, write_displacement, write_labels, write_points

    if isinstance(thing, Displacement):
        write_displacement(thing, path)
    elif isinstance(thing, np.ndarray):
        write_points(Points(thing, tuple(f"L{i + 1:02d}" for i in range(len(thing)))), path)
    elif thing.tensor.is_floating_point():
        write(thing, path)
    else:
        write_labels(thing, path)


def _same(out: Path, settings: dict[str, Any]) -> bool:
    from whence.io import load_yaml

    if (out / SETTINGS).exists():
        known = load_yaml(out / SETTINGS)
        names = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
        changes = [f"{name}: {known.get(name)} -> {settings.get(name)}" for name in names]
        if names:
            raise InputError(f"{out} holds a data set of other settings ({'; '.join(changes)}); choose another --out")
        return True
    if (out / TABLE).exists():
        raise InputError(
            f"{out / TABLE} is there already, and no {SETTINGS} beside it; expected a folder without another data set"
        )
    return False


def _check(n: int, size: int, dims: int, seed: int, jobs: int) -> None:
    for name, value, least in (("n", n, 1), ("size", size, SMALLEST), ("seed", seed, 0), ("jobs", jobs, 1)):
        if value < least:
            raise InputError(f"a phantom needs {name} of at least {least}; got {value}")
    if dims not in (2, 3):
        raise InputError(f"a phantom has 2 or 3 dimensions; got {dims}")


def _options(kind: str, known: dict[str, tuple[str, tuple[str, ...]]], given: dict[str, str]) -> dict[str, str]:
    """All options of a kind, those not given at their defaults."""
    for name, value in given.items():
        if name not in known:
            raise InputError(f"phantom {kind!r} has no option {name!r}; it has {', '.join(known) or 'none'}")
        if value not in known[name][1]:
            raise InputError(f"{name} of phantom {kind!r} is {value!r}; expected one of {', '.join(known[name][1])}")
    return {name: given.get(name, default) for name, (default, _) in known.items()}


def _name(index: int) -> str:
    return f"case{index:04d}"
