"""The general atlas of a run, where the sources of all rows are one: kept with the run, and known again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from whence.data.dataset import read_image
from whence.data.pairs import PairsTable
from whence.errors import InputError
from whence.io import read, read_labels, save_yaml, write, write_labels
from whence.models.predictor import Predictor
from whence.space import Volume

# The general atlas and its labels, in the folder of a run.
GENERAL, LABELS, NAMES = "general.nii.gz", "general_labels.nii.gz", "label_names.yaml"
# Of the middles of two general atlases, mm: the field knows its own frame alone.
FAR = 5.0


def keep_general(rows: PairsTable, run: Path, anew: bool = True) -> None:
    """Keep the one source of all rows in the run's folder, with its labels where they are the same in all.

    ``anew``: whatever another table has left there goes.
    """
    if anew:
        for name in (GENERAL, LABELS, NAMES):
            (run / name).unlink(missing_ok=True)
    if not (run / GENERAL).is_file():
        write(read(rows.rows[0].path("source")), run / GENERAL)
    labels = {row.files.get("source_labels") for row in rows}
    path = labels.pop() if len(labels) == 1 else None
    if path is not None and not (run / LABELS).is_file():
        write_labels(read_labels(path), run / LABELS)
        save_yaml(rows.label_names, run / NAMES)


def check_place(given: Volume, own: Volume, name: str | Path, run: str | Path) -> None:
    """Raise InputError where an atlas, of a file's name, does not lie where a run's own does."""
    if given.dims != own.dims:
        raise InputError(f"{name} is {given.dims}D; expected a {own.dims}D atlas, as the one of {run}")
    away = float(np.linalg.norm(given.grid.centre - own.grid.centre))
    if away > FAR:
        raise InputError(
            f"the middle of {name} lies {away:.0f} mm from that of the atlas that {run} was trained with; "
            f"expected one that lies where that does, within {FAR:g} mm"
        )


def check_sources(predictor: Predictor, run: str | Path, sources: Iterable[Path]) -> None:
    """Say which sources are not the atlas of a run that answers for it whatever it is shown, as ``padded`` tells.

    Raises InputError where one does not even lie where that does.
    """
    own = Path(run) / GENERAL
    if predictor.method.padded or not own.is_file():
        return
    atlas = read_image(own)
    for source in dict.fromkeys(sources):
        given = read_image(source)
        check_place(given, atlas, source, run)
        if not (given.grid.same_as(atlas.grid) and torch.allclose(given.tensor, atlas.tensor)):
            print(
                f"note: {source} is not the general atlas of {run}, which answers for that whatever it is shown: of a "
                "person's scan it does not say how that person would look"
            )
