"""Trace folders of new images."""

from __future__ import annotations

from pathlib import Path

from whence.data.dataset import read_image
from whence.data.pairs import read_pairs
from whence.train.callbacks import progress_bar
from whence.train.evaluate import beside_truth, predict_row
from whence.train.run import load
from whence.train.score import Truth


def predict(run: str | Path, image: str | Path, out: str | Path, split: str | None = None) -> list[Path]:
    """Predict one image (or DICOM folder) into ``out``, or every row of a .csv table into ``out/<id>``.

    Rows of a table that name a target get it saved beside the prediction. Returns the trace folders.
    """
    predictor = load(run)
    image, out = Path(image), Path(out)
    if image.suffix != ".csv":
        trace = predictor.predict(read_image(image), name=str(image), id=image.name.split(".")[0])
        return [trace.save(out)]
    table = read_pairs(image, columns=("source",))
    rows = table.split(split) if split else table
    folders = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(rows), note="")
        for row in rows:
            trace = predict_row(predictor, row, rows)
            if "target" in row.files:
                trace = beside_truth(trace, Truth.of(row, trace.image), row)
            folders.append(trace.save(out / row.id))
            bar.advance(task)
    return folders
