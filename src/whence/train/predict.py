"""Trace folders of new images."""

from __future__ import annotations

from pathlib import Path

from whence.data.dataset import read_image
from whence.data.pairs import read_pairs
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
) -> list[Path]:
    """Predict one image (or DICOM folder) into ``out``, or every row of a .csv table into ``out/<id>``.

    Rows of a table that name a target get it saved beside the prediction. Methods that sample
    draw from ``seed``. Returns the trace folders.
    """
    image, out = Path(image), Path(out)
    check_folder(out)
    predictor = load(run, device)
    if image.suffix != ".csv":
        name = image.name.split(".")[0]
        source = read_image(image)
        if predictor.frame.dims < source.dims:
            print(f"{image} is a volume and the model one of slices: each {predictor.frame.plane} slice by itself")
        trace = predictor.predict(source, row_generator(seed, name), name=str(image), id=name)
        return [trace.save(out)]
    table = read_pairs(image, columns=("source",))
    rows = table.split(split) if split else table
    folders = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(rows), note="")
        for row in rows:
            trace = predict_row(predictor, row, rows, seed)
            if "target" in row.files:
                trace = beside_truth(trace, Truth.of(row, trace.image), row)
            folders.append(trace.save(out / row.id))
            bar.advance(task)
    return folders
