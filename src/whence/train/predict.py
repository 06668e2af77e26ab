"""Trace folders of new images."""

from __future__ import annotations

from pathlib import Path

from whence.data.dataset import read_image
from whence.data.pairs import read_pairs
from whence.errors import InputError
from whence.models.evaluator import with_novelty
from whence.models.predictor import Predictor
from whence.trace import Trace
from whence.train.callbacks import progress_bar
from whence.train.evaluate import beside_truth, predict_row, row_generator
from whence.train.run import check_folder, load
from whence.train.score import Truth


def predict(
    run: str | Path,
    image: str | Path,
    out: str | Path,
    split: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    target: str | Path | None = None,
    evaluator: str | Path | None = None,
) -> list[Path]:
    """Predict one image (or DICOM folder) into ``out``, or every row of a .csv table into ``out/<id>``.

    Rows of a table that name a target get it saved beside the prediction. Methods that sample
    draw from ``seed``. ``target`` is the second image of a method that compares two; a table names its
    own. Novelty is judged by the ``evaluator``, a run that estimates spatial error, where one is named.
    Returns the trace folders.
    """
    image, out = Path(image), Path(out)
    check_folder(out)
    predictor = load(run, device)
    judge = None if evaluator is None else load(evaluator, device)
    if image.suffix != ".csv":
        name = image.name.split(".")[0]
        source = read_image(image)
        if predictor.frame.dims < source.dims:
            print(f"{image} is a volume and the model one of slices: each {predictor.frame.plane} slice by itself")
        second = None if target is None else read_image(target)
        trace = predictor.predict(source, row_generator(seed, name), target=second, name=str(image), id=name)
        return [_judged(trace, judge).save(out)]
    if target is not None:
        raise InputError(f"{image} is a table, which names its targets itself; expected no --target")
    table = read_pairs(image, columns=("source",))
    # Who is of the target's domain needs no translation into it.
    rows = (table.split(split) if split else table).domain("source")
    folders = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(rows), note="")
        for row in rows:
            trace = _judged(predict_row(predictor, row, rows, seed), judge)
            if "target" in row.files:
                trace = beside_truth(trace, Truth.of(row, trace.image), row)
            folders.append(trace.save(out / row.id))
            bar.advance(task)
    return folders


def _judged(trace: Trace, judge: Predictor | None) -> Trace:
    return trace if judge is None else with_novelty(trace, judge)
