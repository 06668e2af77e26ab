"""LUMIERE (Suter et al., Scientific Data 2022): glioblastoma before and after surgery, in MNI space.

Layout, as the authors' archives unpack: ``Imaging/Patient-NNN/week-WWW[-N]/DeepBraTumIA-segmentation/atlas/`` with
``skull_strip/{ct1,t1,t2,flair}_skull_strip.nii.gz`` and ``segmentation/seg_mask.nii.gz`` (1 enhancing, 2 necrosis,
3 oedema), and ``LUMIERE-ExpertRating*.csv``, whose rating says which week is ``Pre-Op`` and which ``Post-Op``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from whence.data.pairs import write_pairs
from whence.errors import InputError
from whence.field import resample
from whence.io import read_labels, write_labels

SEQUENCES = ("t1", "ct1", "t2", "flair")
ATLAS = Path("DeepBraTumIA-segmentation") / "atlas"
SEGMENTATION = ATLAS / "segmentation" / "seg_mask.nii.gz"
# Oedema is not taken out.
ENHANCING, NECROSIS = 1, 2


def convert(
    folder: str | Path,
    out: str | Path,
    test: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    sequence: str = "t1",
) -> Path:
    """A row for each patient with both weeks: the images where they lie, and masks written below ``out``.

    ``source_mask`` is the tumour's core before. ``target_cavity`` is that core and what is called necrosis after, less
    what still enhances: the segmentation has no label for a cavity (ours). ``test`` names the held-out patients (the
    last one if empty).
    Raises InputError for a folder of another layout, an unknown sequence or patient.
    """
    folder, out = Path(folder), Path(out)
    if sequence not in SEQUENCES:
        raise InputError(f"unknown sequence {sequence!r}; expected one of {', '.join(SEQUENCES)}")
    weeks = _weeks(folder)
    found = {patient: pair for patient, pair in weeks.items() if all(_whole(week, sequence) for week in pair)}
    if not found:
        name = f"Imaging/Patient-*/week-*/{SEGMENTATION}"
        raise InputError(f"expected {name} of weeks before and after surgery in {folder}")
    held_out = list(test) or sorted(found)[-1:]
    for name in held_out:
        if name not in found:
            raise InputError(f"no patient {name!r} with both weeks in {folder}; it has {', '.join(sorted(found))}")
    rows: list[dict[str, Any]] = []
    for number, (patient, (before, after)) in enumerate(sorted(found.items()), start=1):
        home = out.resolve() / patient
        masks = _masks(before, after, home)
        rows.append(
            {
                "id": patient,
                "split": "test" if patient in held_out else "train",
                "patient": patient,
                "source": _image(before, sequence).resolve(),
                "target": _image(after, sequence).resolve(),
                **masks,
                "week_before": before.name,
                "week_after": after.name,
            }
        )
        if progress is not None:
            progress(number, len(found))
    return write_pairs(out / "pairs.csv", rows)


def _weeks(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of the last week before surgery and of the first one after it, by patient."""
    tables = sorted(folder.glob("LUMIERE-ExpertRating*.csv"))
    if not tables:
        raise InputError(f"expected LUMIERE-ExpertRating*.csv in {folder}, which says what is Pre-Op and Post-Op")
    rated: dict[str, dict[str, list[str]]] = {}
    with tables[-1].open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        column = next((name for name in reader.fieldnames or [] if name.startswith("Rating (")), None)
        if column is None or not {"Patient", "Date"} <= set(reader.fieldnames or []):
            names = ", ".join(reader.fieldnames or [])
            raise InputError(f"{tables[-1]} has the columns {names}; expected Patient, Date and Rating (...)")
        for row in reader:
            kind = (row[column] or "").strip()
            rated.setdefault(row["Patient"].strip(), {}).setdefault(kind, []).append(row["Date"].strip())
    found = {}
    for patient, kinds in rated.items():
        # Of one week the suffix does not say which scan came first: the rating does.
        before, after = (sorted(kinds.get(kind, []), key=_week) for kind in ("Pre-Op", "Post-Op"))
        later = [week for week in after if before and _week(week)[0] >= _week(before[0])[0]]
        if later:
            earlier = [week for week in before if _week(week)[0] <= _week(later[0])[0]]
            home = folder / "Imaging" / patient
            found[patient] = (home / earlier[-1], home / later[0])
    return found


def _week(name: str) -> tuple[int, int]:
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return (numbers[0] if numbers else 0, numbers[1] if len(numbers) > 1 else 0)


def _image(week: Path, sequence: str) -> Path:
    return week / ATLAS / "skull_strip" / f"{sequence}_skull_strip.nii.gz"


def _whole(week: Path, sequence: str) -> bool:
    return _image(week, sequence).is_file() and (week / SEGMENTATION).is_file()


def _masks(before: Path, after: Path, home: Path) -> dict[str, Path]:
    paths = {"source_mask": home / "source_mask.nii.gz", "target_cavity": home / "target_cavity.nii.gz"}
    if not all(path.is_file() for path in paths.values()):
        first, second = (read_labels(week / SEGMENTATION) for week in (before, after))
        core = first.with_tensor(((first.tensor == ENHANCING) | (first.tensor == NECROSIS)).to(torch.uint8))
        write_labels(core, paths["source_mask"])
        was = resample(core, second.grid, mode="label", outside="zeros").tensor != 0
        cavity = (was | (second.tensor == NECROSIS)) & (second.tensor != ENHANCING)
        write_labels(second.with_tensor(cavity.to(torch.uint8)), paths["target_cavity"])
    return paths
