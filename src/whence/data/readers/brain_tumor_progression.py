"""Brain-Tumor-Progression (TCIA): two dates of glioblastoma patients, T1 after contrast, tumour masks.

Layout: ``NN/{Pre,Post}_Scan_T1.nii.gz`` and ``NN/{Pre,Post}_Mask.nii.gz``, stacks of thick axial
slices whose header says 1 mm in every direction, which is not physical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whence.data.dataset import read_image
from whence.data.pairs import write_pairs
from whence.errors import InputError
from whence.field import Displacement, warp
from whence.io import load_json, read_labels, save_json, write, write_labels
from whence.metrics.body import body_mask
from whence.registration import register_affine
from whence.space import Grid, Volume

# A usual thickness of such stacks; it only keeps the registration from averaging slices away.
SLICE_MM = 5.0
FILES = {"source": "Pre_Scan_T1", "target": "Post_Scan_T1", "source_mask": "Pre_Mask", "target_mask": "Post_Mask"}


def convert(
    folder: str | Path,
    out: str | Path,
    test: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the axial slices of every patient as pairs, the second date affinely aligned to the first.

    Slices are single-slice volumes at a nominal 1 x 1 x 5 mm; slices that either date lacks are left
    out. ``target_cavity`` is the tumour of the second date: of what no operation took out it is what past cases show.
    ``test`` names the held-out patients (the last one if empty), all others train. A row's
    ``patient`` and ``slice`` say where it is from. Finished patients are not done again.
    Raises InputError for a folder of another layout or an unknown patient.
    """
    folder, out = Path(folder), Path(out)
    patients = sorted(p.name for p in folder.iterdir() if _is_patient(p)) if folder.is_dir() else []
    if not patients:
        raise InputError(f"expected folders with {', '.join(FILES.values())} (.nii.gz) in {folder}; found none")
    held_out = list(test) or patients[-1:]
    for name in held_out:
        if name not in patients:
            raise InputError(f"no patient {name!r} in {folder}; it has {', '.join(patients)}")
    rows: list[dict[str, Any]] = []
    for number, patient in enumerate(patients, start=1):
        slices = _patient(folder / patient, out / patient)
        split = "test" if patient in held_out else "train"
        rows += [
            {
                "id": f"{patient}_{index:02d}",
                "split": split,
                "patient": patient,
                "slice": index,
                **{column: out.resolve() / patient / f"{column}_{index:02d}.nii.gz" for column in FILES},
                "target_cavity": out.resolve() / patient / f"target_mask_{index:02d}.nii.gz",
            }
            for index in slices
        ]
        if progress is not None:
            progress(number, len(patients))
    return write_pairs(out / "pairs.csv", rows)


def _is_patient(folder: Path) -> bool:
    return folder.is_dir() and all((folder / f"{name}.nii.gz").is_file() for name in FILES.values())


def _patient(folder: Path, out: Path) -> list[int]:
    """Write a patient's slices and return their numbers."""
    done = out / "slices.json"
    if done.is_file():
        return list(load_json(done)["slices"])
    images = {column: _volume(folder / f"{FILES[column]}.nii.gz", "mask" in column) for column in FILES}
    for side in ("source", "target"):
        image, mask = images[side], images[f"{side}_mask"]
        if not mask.grid.same_as(image.grid, tolerance=0.05):
            raise InputError(
                f"{folder / FILES[f'{side}_mask']}.nii.gz lies on another grid ({mask.grid}) than {FILES[side]} "
                f"({image.grid}); expected the same"
            )
    matrix = register_affine(images["source"], images["target"])
    towards = Displacement.from_affine(matrix, images["source"].grid)
    # What the second date's stack does not reach must not be invented by repeating its last slice.
    images["target"] = warp(images["target"], towards, outside="zeros")
    images["target_mask"] = warp(images["target_mask"], towards, mode="label", outside="zeros")
    bodies = [body_mask(images[column].tensor)[0, 0].numpy() for column in ("source", "target")]
    shares = [body.mean(axis=(0, 1)) for body in bodies]
    kept = [k for k in range(images["source"].grid.shape[2]) if min(share[k] for share in shares) > 0.05]
    out.mkdir(parents=True, exist_ok=True)
    for column, volume in images.items():
        for k in kept:
            (write_labels if "mask" in column else write)(_slice(volume, k), out / f"{column}_{k:02d}.nii.gz")
    save_json({"slices": kept, "affine": np.round(matrix, 6).tolist()}, done)
    return kept


def _volume(path: Path, labels: bool) -> Volume:
    volume = read_labels(path) if labels else read_image(path)
    affine = volume.grid.affine @ np.diag([1.0, 1.0, SLICE_MM, 1.0])
    return Volume(volume.tensor, Grid(volume.grid.shape, affine))


def _slice(volume: Volume, index: int) -> Volume:
    shape = volume.grid.shape
    return Volume(volume.tensor[..., index : index + 1], volume.grid.cropped((0, 0, index), (shape[0], shape[1], 1)))
