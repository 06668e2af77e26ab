"""Tables of a run over held-out pairs."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import Pair, PairsTable, read_pairs
from whence.errors import InputError
from whence.io import read_labels, replacing, save_json
from whence.models.cases import Asked
from whence.models.predictor import Predictor
from whence.trace import Trace
from whence.train.callbacks import progress_bar
from whence.train.general import check_sources
from whence.train.run import check_folder, forget_page, load
from whence.train.score import OF_THE_TRACE, Truth, nothing, score, summarise


def evaluate(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    split: str = "test",
    cases: int = 6,
    seed: int = 0,
    device: str = "cpu",
    sampling: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Predict every pair of a split and compare with the truth; returns the summary of every figure.

    Writes ``metrics.csv`` (a row a case, ``nothing_`` columns for the source itself), ``summary.json``
    and the trace folders of the first ``cases`` pairs, with the true image beside each prediction; those
    that an earlier evaluation left under ``out/cases`` are removed.
    """
    import pandas as pd

    out = Path(out)
    check_folder(out)
    predictor = load(run, device, sampling)
    table = rows_with_truth(data, split, predictor.columns)
    note_unknown(predictor, table, data)
    check_sources(predictor, run, [row.path("source") for row in table])
    rows, absent, kept = [], [], []
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(table), note="")
        for row in table:
            try:
                trace = predict_row(predictor, row, table, seed)
            except InputError as error:
                raise InputError(f"row {row.id!r} of {data}: {error}") from error
            truth = Truth.of(row, trace.image)
            rows.append({"id": row.id, **score(trace, truth)})
            beside = score(nothing(trace), truth)
            absent.append({name: value for name, value in beside.items() if name not in OF_THE_TRACE})
            if len(rows) <= cases:
                beside_truth(trace, truth, row).save(out / "cases" / row.id)
                kept.append(row.id)
            bar.advance(task)
    summary = summarise(rows, absent)
    with replacing(out / "metrics.csv") as temporary:
        columns = pd.DataFrame(rows).join(pd.DataFrame(absent).add_prefix("nothing_"))
        columns.to_csv(temporary, index=False)
    content = {"method": predictor.method.name, "split": split, "n": len(rows), "cases": kept, "metrics": summary}
    save_json(content, out / "summary.json")
    _remove_others(out / "cases", kept)
    forget_page(out)
    return summary


def rows_with_truth(data: str | Path, split: str, called: Mapping[str, str] | None = None) -> PairsTable:
    """The rows of a split that can be compared with the truth: of images of two domains the sources with a target."""
    table = read_pairs(data, columns=("source",), called=called).split(split)
    if not table.has_domains:
        return read_pairs(data, called=called).split(split)
    rows = table.domain("source").complete(("target",))
    if not len(rows):
        raise InputError(f"{data} names no target in a row of split {split} of the source's domain; nothing to compare")
    return rows


def note_unknown(predictor: Predictor, rows: PairsTable, data: str | Path) -> None:
    """Say which of the conditions that a method is told no row of a table names."""
    known = predictor.method.attributes
    for name in () if known is None else known.names:
        if not any(name in row.conditions for row in rows):
            print(f"note: none of these rows of {data} has a {name!r}, which is taken for unknown in all")


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """Remove the trace folders below ``folder`` but those kept; what is no trace folder stays."""
    for description in folder.glob("*/trace.json"):
        case = description.parent
        if case.name not in kept and not case.is_symlink():
            shutil.rmtree(case)


def row_generator(seed: int, name: str) -> torch.Generator:
    """Generator of what a method draws for one image, the same whatever other images are predicted with it."""
    # The generator heeds 32 bits of its seed and no more.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


def predict_row(predictor: Predictor, row: Pair, table: PairsTable, seed: int = 0, rank: int = 0) -> Trace:
    """Trace of a row's source, under the row's id and with the table's names of labels.

    ``rank``: which of the past cases most like it is shown, from 0.
    """
    path = row.path("source")
    known = {"label_names": table.label_names} if table.label_names else {}
    target = read_image(row.path("target")) if "target" in predictor.method.inputs else None
    labels = read_labels(row.path("source_labels")) if "source_labels" in predictor.method.inputs else None
    given: dict[str, Any] = {"target": target, "labels": labels, "name": str(path), "id": row.id}
    given |= {"conditions": row.conditions}
    if "source_mask" in predictor.method.inputs:
        patient = str(row.conditions.get("patient", row.id))
        given |= {"mask": read_labels(row.path("source_mask")), "asked": Asked(patient, rank=rank, files=(path,))}
    return predictor.predict(read_image(path), row_generator(seed, row.id), **given, **known)


def beside_truth(trace: Trace, truth: Truth, row: Pair) -> Trace:
    """The trace with the true image, on the prediction's intensity scale, and the source's labels carried."""
    target = truth.target
    same_scale = Intensity.of(trace.source).restore(Intensity.of(target).normalise(target.tensor))
    labels = read_labels(row.files["source_labels"]) if "source_labels" in row.files else None
    return trace.with_truth(target.with_tensor(same_scale), labels)
