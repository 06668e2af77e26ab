"""Conditional atlases: what a run makes of the general one under conditions, alone or along a sweep of one."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.data.dataset import read_image
from whence.errors import InputError
from whence.field import jacobian_determinant
from whence.io import load_json, load_yaml, read, read_labels, save_json
from whence.models.draws import joined
from whence.models.predictor import Predictor
from whence.space import Volume
from whence.trace import Trace
from whence.train.callbacks import progress_bar
from whence.train.evaluate import row_generator
from whence.train.general import GENERAL, LABELS, NAMES, check_place
from whence.train.run import check_alone, check_folder, forget_page, load

MOST = 200
LEAST_DETERMINANT = 1e-3
# What a page calls the images of such a trace.
SIDES = {"source": "General atlas", "prediction": "Conditional atlas"}


def write_atlas(
    run: str | Path,
    out: str | Path,
    conditions: Sequence[str] = (),
    sweep: str | None = None,
    samples: int = 1,
    seed: int = 0,
    image: str | Path | None = None,
    labels: str | Path | None = None,
    device: str = "cpu",
    sampling: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the conditional atlas as a trace folder, or those of a sweep such as ``age=50:80:5`` under ``out/cases``.

    Beside what every trace has: the carried labels and their volumes, the log of the Jacobian's determinant, and of
    more ``samples`` than one their mean and deviations. ``image`` is the general atlas, if not the one that the run
    was trained with, ``labels`` its labels. Returns the trace folders.
    Raises InputError where the run is told no conditions, or not these.
    """
    out, run = Path(out), Path(run)
    check_folder(out)
    check_alone(out, "trace.json")
    before = _before(out, sweep)
    predictor = load(run, device, sampling)
    known = predictor.method.attributes
    if known is None:
        raise InputError(f"{run} is a {predictor.method.name}, which is told no conditions; expected one that is")
    if samples < 1:
        raise InputError(f"expected 1 sample or more; got {samples}")
    asked = known.parsed(conditions)
    swept, values = _swept(sweep, known.names)
    if swept in asked:
        raise InputError(f"{swept} is given as a condition and as a sweep; expected one of them")
    atlas = _general(run, image)
    # Of a sweep its ends are the farthest.
    ends = [asked] if not values else [{**asked, swept: value} for value in (values[0], values[-1])]
    for note in dict.fromkeys(note for each in ends for note in known.beyond(each)):
        print(note)
    beside = labels if labels is not None else (run / LABELS if image is None and (run / LABELS).is_file() else None)
    carried = None if beside is None else read_labels(beside)
    names = load_yaml(run / NAMES) if labels is None and (run / NAMES).is_file() else {}
    folders: list[Path] = []
    with progress_bar() as bar:
        task = bar.add_task("drawing atlases", total=samples * max(1, len(values)), note="")
        for value in values or [None]:
            at = asked if value is None else {**asked, swept: value}
            title = "_".join(f"{key}_{_plain(found)}" for key, found in at.items()) or "unconditional"
            traces = []
            for number in range(seed, seed + samples):
                # Along a sweep the same noise, so that nothing but the condition changes.
                traces.append(_atlas(predictor, atlas, carried, names, at, title, number))
                bar.advance(task)
            trace = traces[0] if samples == 1 else joined(traces)
            folders.append(trace.with_truth(None, carried).save(out if value is None else out / "cases" / title))
    forget_page(out)
    if values:
        for old in before - {folder.name for folder in folders}:
            shutil.rmtree(out / "cases" / old, ignore_errors=True)
        summary = {"title": f"Conditional atlas along {swept}", "method": predictor.method.name}
        summary |= {"cases": [folder.name for folder in folders], "sweep": {"name": swept, "values": values}}
        save_json(summary, out / "summary.json")
    return folders


def _atlas(
    predictor: Predictor,
    atlas: Volume,
    labels: Volume | None,
    names: Mapping[str, str],
    conditions: Mapping[str, Any],
    name: str,
    seed: int,
) -> Trace:
    known = {"label_names": dict(names)} if names else {}
    given = {"conditions": conditions, "name": "the atlas", "id": name, "sides": SIDES}
    trace = predictor.predict(atlas, row_generator(seed, "atlas"), **given, **known)
    determinant = jacobian_determinant(trace.displacement)
    extras: dict[str, Any] = {"log Jacobian": trace.image.with_tensor(determinant.clamp_min(LEAST_DETERMINANT).log())}
    if labels is not None:
        found = volumes(trace.carry(labels))
        # A label that has vanished has a volume of 0.
        extras["volumes [ml]"] = [{names.get(label, label): found.get(label, 0.0) for label in volumes(labels)}]
    return replace(trace, extras={**trace.extras, **extras})


def _before(out: Path, sweep: str | None) -> set[str]:
    """Names of the cases of a sweep that this one takes the place of; whatever else lies there is refused."""
    if sweep is not None and (out / "trace.json").is_file():
        raise InputError(f"{out} holds one atlas; choose another --out for a sweep")
    known = load_json(out / "summary.json") if (out / "summary.json").is_file() else {}
    if known and (sweep is None or "sweep" not in known):
        held = "a sweep" if "sweep" in known else "an evaluation"
        raise InputError(f"{out} holds {held}; choose another --out")
    return {Path(str(name)).name for name in known.get("cases", ())}


def _plain(value: Any) -> str:
    """As a part of a folder's name."""
    return re.sub(r"[^\w.+-]", "-", f"{value:.12g}" if isinstance(value, float) else str(value))


def volumes(labels: Volume) -> dict[str, float]:
    """Volume of each label in ml; of a slice, as if it were 10 mm thick."""
    voxel = float(np.prod(labels.grid.spacing)) * (10.0 if labels.dims == 2 else 1.0) / 1000
    found, counts = torch.unique(labels.tensor, return_counts=True)
    return {str(int(n)): round(int(c) * voxel, 3) for n, c in zip(found, counts, strict=True) if int(n)}


def _general(run: Path, image: str | Path | None) -> Volume:
    """The general atlas of a run, or another that lies where that one does."""
    if image is not None:
        given = read_image(image)
        if (run / GENERAL).is_file():
            check_place(given, read(run / GENERAL), image, run)
        return given
    if not (run / GENERAL).is_file():
        raise InputError(f"{run} holds no {GENERAL} any more; expected the general atlas as --image")
    return read_image(run / GENERAL)


def _swept(sweep: str | None, names: Sequence[str]) -> tuple[str, list[float]]:
    """The name and the values of a sweep, ``age=50:80:5``."""
    if sweep is None:
        return "", []
    name, _, numbers = sweep.partition("=")
    try:
        first, last, step = map(float, numbers.split(":"))
        if not all(map(math.isfinite, (first, last, step))):
            raise ValueError("not finite")
    except ValueError as error:
        raise InputError(f"expected a sweep as {names[0]}=FIRST:LAST:STEP; got {sweep!r}") from error
    if name not in names:
        raise InputError(f"the model knows nothing of {name!r}; expected {' or '.join(names)}")
    count = (last - first) / step if step else 0
    if count < 0:
        raise InputError(f"{sweep!r} steps away from its last value; expected a STEP that leads from FIRST to LAST")
    if not 1 <= count + 1e-6 < MOST:
        found = f"{int(count + 1e-6) + 1} values" if step else "a STEP of 0"
        raise InputError(f"expected a sweep of 2 to {MOST} values from FIRST to LAST by STEP; {sweep!r} has {found}")
    return name, [round(first + step * n, 6) for n in range(int(count + 1e-6) + 1)]
