"""An unbiased template of many people: registered to their mean, averaged, and brought to the mean of their shapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from whence.data.frame import Intensity
from whence.data.pairs import Pair, PairsTable, read_pairs, write_pairs
from whence.errors import InputError
from whence.field import Displacement, invert, resample, warp
from whence.io import load_json, read, read_displacement, read_labels, save_json, write, write_labels
from whence.space import Grid, Volume
from whence.train.cohort import register_table
from whence.train.register import RegisterConfig
from whence.train.run import check_alone, check_folder

TEMPLATE, LABELS, RECORD = "template.nii.gz", "template_labels.nii.gz", "template.json"
# Intensity of the brightest half per cent, of which all people are brought to one.
WHITE = 1000.0


def build_template(
    table: str | Path,
    out: str | Path,
    config: RegisterConfig,
    rounds: int = 4,
    column: str = "target",
    start: str | Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    split: str = "train",
) -> Path:
    """Build ``out/template.nii.gz`` from the images of a table's column; returns its path.

    Of the rows of a ``split``: whoever is in the template is held out no more. Of all rows with ``all``.

    Each of the ``rounds`` registers everybody to the template so far (``start``, or the plain mean on the first one's
    grid), takes the mean of the warped images, and carries it by the inverse of the mean displacement, so that it lies
    in the middle of all shapes whoever it began with (Guimond et al. 2000; Avants et al. 2010). With a column of labels
    the template has labels too, by vote. A build that was stopped goes on, pair by pair; ``jobs`` and ``scheduler`` as
    for a cohort.
    Raises InputError where rows lack the column or the folder holds a template of other options.
    """
    out = Path(out)
    check_folder(out)
    check_alone(out)
    if rounds < 1:
        raise InputError(f"expected 1 round or more; got {rounds}")
    rows = read_pairs(table, columns=("source", column) if column != "source" else ("source",))
    rows = rows if split == "all" else rows.split(split)
    first = read(start if start is not None else rows.rows[0].path(column)).grid
    made = {"table": str(Path(table).resolve()), "rows": rows.digest, "split": split, "column": column}
    made |= {"start": None if start is None else str(Path(start).resolve()), "registration": asdict(config)}
    out.mkdir(parents=True, exist_ok=True)
    _check_same(out, made)
    current = out / "start.nii.gz"
    if not current.is_file():
        write(_shown(read(start)) if start is not None else _mean(rows, column, first), current)
    for number in range(1, rounds + 1):
        folder, after = out / f"round_{number}", out / f"template_{number}.nii.gz"
        if not after.is_file():
            target = current.resolve()
            pairs = [{"id": r.id, "source": r.path(column), "target": target, "split": "train"} for r in rows]
            folder.mkdir(exist_ok=True)
            register_table(write_pairs(folder / "pairs.csv", pairs), folder, config, jobs, scheduler)
            image, labels = _in_the_middle(folder, rows, column)
            if labels is not None:
                write_labels(labels, out / f"template_labels_{number}.nii.gz")
            write(image, after)
            # What is in the template is not kept as well.
            shutil.rmtree(folder)
        current = after
    write(read(current), out / TEMPLATE)
    voted = out / f"template_labels_{rounds}.nii.gz"
    if voted.is_file():
        write_labels(read_labels(voted), out / LABELS)
    return out / TEMPLATE


def _in_the_middle(folder: Path, rows: PairsTable, column: str) -> tuple[Volume, Volume | None]:
    """Mean image, and labels by vote, of people registered to a template, in the mean of their shapes."""
    grid = read_displacement(folder / rows.rows[0].id / "displacement.nii.gz").grid
    total, moved = torch.zeros(1, 1, *grid.shape), torch.zeros(1, grid.dims, *grid.shape)
    for row in rows:
        field = read_displacement(folder / row.id / "displacement.nii.gz")
        total += _shown(warp(read(row.path(column)), field)).tensor
        moved += field.tensor
    back = invert(Displacement(moved / len(rows), grid))
    mean = warp(Volume(total / len(rows), grid), back)
    named = f"{column}_labels"
    if not rows.has(named):
        return mean, None
    return mean, _voted(folder, rows.rows, named, back)


def _voted(folder: Path, rows: Sequence[Pair], column: str, back: Displacement) -> Volume:
    votes: dict[int, torch.Tensor] = {}
    for row in rows:
        field = read_displacement(folder / row.id / "displacement.nii.gz")
        carried = warp(read_labels(row.path(column)), field, mode="label").tensor
        for label in carried.unique().tolist():
            here = (carried == label).float()
            votes[int(label)] = votes[int(label)] + here if int(label) in votes else here
    names = sorted(votes)
    shares = [warp(Volume(votes[name], back.grid), back).tensor for name in names]
    winner = torch.stack(shares).argmax(dim=0)
    return Volume(torch.tensor(names, dtype=torch.int32)[winner], back.grid)


def _mean(rows: PairsTable, column: str, grid: Grid) -> Volume:
    people = (_shown(resample(read(row.path(column)), grid, outside="zeros")).tensor for row in rows)
    return Volume(sum(people, torch.zeros(1, 1, *grid.shape)) / len(rows), grid)


def _shown(image: Volume) -> Volume:
    """An image whose intensities lie between 0 and about ``WHITE``, its first channel."""
    scaled = (Intensity.of(image).normalise(image.tensor[:, :1]) + 1) * (WHITE / 2)
    return image.with_tensor(scaled)


def _check_same(out: Path, made: dict[str, object]) -> None:
    if (out / RECORD).is_file():
        known = load_json(out / RECORD)
        # As it is read back: lists for tuples.
        if known != json.loads(json.dumps(made)):
            raise InputError(
                f"{out} holds a template made with other options or of another table; choose another --out"
            )
        return
    save_json(made, out / RECORD)
