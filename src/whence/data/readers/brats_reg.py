"""BraTS-Reg (Baheti et al. 2021): gliomas before surgery and at follow-up, with landmarks.

Layout: ``BraTSReg_NNN/BraTSReg_NNN_{00_0000,01_DDDD}_{t1,t1ce,t2,flair}.nii.gz``, 00 before surgery, 01 DDDD days
after it, and of training cases ``..._landmarks.csv`` beside them: Landmark, X, Y, Z in mm, LPS, as ITK has them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whence.data.pairs import write_pairs
from whence.errors import InputError
from whence.io import Points, write_points
from whence.space import to_frame

SEQUENCES = ("t1ce", "t1", "t2", "flair")


def convert(
    folder: str | Path,
    out: str | Path,
    test: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    sequence: str = "t1ce",
) -> Path:
    """A row for each patient: the images where they lie, landmarks written below ``out``.

    ``test`` names the held-out patients (the last one if empty); ``days`` says how long after the first the second
    image is. Raises InputError for a folder of another layout, an unknown sequence or patient, or a table of landmarks
    that is none.
    """
    folder, out = Path(folder), Path(out)
    if sequence not in SEQUENCES:
        raise InputError(f"unknown sequence {sequence!r}; expected one of {', '.join(SEQUENCES)}")
    found = {home.name: dates for home in sorted(folder.glob("BraTSReg_*")) if (dates := _dates(home, sequence))}
    if not found:
        name = f"BraTSReg_NNN/BraTSReg_NNN_00_0000_{sequence}.nii.gz"
        raise InputError(f"expected {name} and _01_ in {folder}; found none")
    held_out = list(test) or sorted(found)[-1:]
    for name in held_out:
        if name not in found:
            raise InputError(f"no patient {name!r} in {folder}; it has {', '.join(found)}")
    rows: list[dict[str, Any]] = []
    for number, (patient, dates) in enumerate(found.items(), start=1):
        row: dict[str, Any] = {
            "id": patient,
            "split": "test" if patient in held_out else "train",
            "patient": patient,
            "days": int(dates[1].rsplit("_", 1)[1]),
        }
        for side, date in zip(("source", "target"), dates, strict=True):
            row[side] = (folder / patient / f"{date}_{sequence}.nii.gz").resolve()
            landmarks = folder / patient / f"{date}_landmarks.csv"
            if landmarks.is_file():
                row[f"{side}_points"] = out.resolve() / patient / f"{side}_points.csv"
                write_points(_landmarks(landmarks), row[f"{side}_points"])
        rows.append(row)
        if progress is not None:
            progress(number, len(found))
    return write_pairs(out / "pairs.csv", rows)


def _dates(home: Path, sequence: str) -> tuple[str, str] | None:
    """Beginnings of the names of both dates' files; None where one lacks the sequence."""
    ends = [sorted(home.glob(f"{home.name}_{date}_*_{sequence}.nii.gz")) for date in ("00", "01")]
    if not all(ends):
        return None
    before, after = (files[0].name.removesuffix(f"_{sequence}.nii.gz") for files in ends)
    return before, after


def _landmarks(path: Path) -> Points:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Some of the files have blanks around the names and the numbers.
            lines = [{key.strip(): (value or "").strip() for key, value in row.items()} for row in csv.DictReader(file)]
        coordinates = np.array([[float(line[axis]) for axis in "XYZ"] for line in lines]).reshape(-1, 3)
        return Points(to_frame(coordinates, "LPS", "RAS"), tuple(line["Landmark"] for line in lines))
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path} holds no landmarks: {error}; expected the columns Landmark, X, Y, Z") from error
