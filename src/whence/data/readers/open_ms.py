"""Open MS (Lesjak et al. 2016): T1, T2 and FLAIR of people with multiple sclerosis at two dates.

Layout: ``patientNN/studyN_{T1W,T2W,FLAIR}.nii.gz``, each in its own space, with the ITK affines
``studyN_{T1W,T2W}_intrastudy_to_FLAIR.txt`` that carry them onto FLAIR.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from whence.data.dataset import read_image
from whence.data.pairs import write_pairs
from whence.data.perturbation import known_motion
from whence.errors import InputError
from whence.field import Displacement, resample, warp
from whence.io import load_json, read_affine, save_json, write, write_displacement, write_labels
from whence.metrics.body import body_mask
from whence.space import Grid, Volume

MODALITIES = {"t1": "T1W", "t2": "T2W", "flair": "FLAIR"}
STUDIES = ("study1", "study2")
COLUMNS = ("source", "target", "counterpart", "registered", "displacement", "inverse", "source_brain", "target_brain")
# Slabs of one person's head that are held out, as shares of the slices that show it; slices beside them are left out.
SLABS = {"val": (0.30, 0.40), "test": (0.50, 0.65)}


def convert(
    folder: str | Path,
    out: str | Path,
    test: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write axial slices as multimodal pairs that a known deformation parts.

    Both modalities are brought onto FLAIR's slices by the affines that come with them; the target is then moved by a
    random field of IMSE's protocol. The source is T1, the target T2 (ids ``..._t2``) or FLAIR (``..._flair``).
    ``counterpart`` is the target's modality where the source lies, ``registered`` the source's where the target
    lies, the ``brain`` columns are masks of the head. ``test`` names the held-out patients; without it slabs of each
    head are held out, with a slice of distance. Finished studies are not done again.
    Raises InputError for a folder of another layout or an unknown patient.
    """
    folder, out = Path(folder), Path(out)
    patients = sorted(p.name for p in folder.iterdir() if _studies(p)) if folder.is_dir() else []
    if not patients:
        raise InputError(f"expected folders with {', '.join(_files('study1'))} in {folder}; found none")
    for name in test:
        if name not in patients:
            raise InputError(f"no patient {name!r} in {folder}; it has {', '.join(patients)}")
    studies = [(patient, study) for patient in patients for study in _studies(folder / patient)]
    rows: list[dict[str, Any]] = []
    for number, (patient, study) in enumerate(studies, start=1):
        name = f"{patient}_{study}"
        slices = _study(folder / patient, study, out / name)
        for place, index in enumerate(slices):
            split = _split(place, len(slices)) if not test else ("test" if patient in test else "train")
            if split:
                rows += [_row(out.resolve() / name, name, patient, index, split, kind) for kind in ("t2", "flair")]
        if progress is not None:
            progress(number, len(studies))
    return write_pairs(out / "pairs.csv", rows)


def _files(study: str) -> list[str]:
    images = [f"{study}_{name}.nii.gz" for name in MODALITIES.values()]
    return images + [f"{study}_{MODALITIES[kind]}_intrastudy_to_FLAIR.txt" for kind in ("t1", "t2")]


def _studies(folder: Path) -> list[str]:
    return [s for s in STUDIES if folder.is_dir() and all((folder / name).is_file() for name in _files(s))]


def _split(place: int, count: int) -> str:
    """Split of a slice of one person; none beside a slab."""
    for name, (low, high) in SLABS.items():
        first, last = round(low * count), round(high * count) - 1
        if first <= place <= last:
            return name
        if first - 1 <= place <= last + 1:
            return ""
    return "train"


def _row(folder: Path, name: str, patient: str, index: int, split: str, kind: str) -> dict[str, Any]:
    shared = ("source", "registered", "displacement", "inverse", "source_brain", "target_brain")
    files = {
        column: folder / f"{column}{'' if column in shared else f'_{kind}'}_{index:02d}.nii.gz" for column in COLUMNS
    }
    facts = {"patient": patient, "slice": index, "source_modality": "t1", "target_modality": kind}
    return {"id": f"{name}_{index:02d}_{kind}", "split": split, **files, **facts}


def _study(folder: Path, study: str, out: Path) -> list[int]:
    """Write the slices of a study and return their numbers."""
    done = out / "slices.json"
    if done.is_file():
        return list(load_json(done)["slices"])
    images = _aligned(folder, study)
    head = _head(body_mask(images["flair"].tensor))
    kept = _shown(head, images)
    spacing = images["flair"].grid.spacing[:2]
    out.mkdir(parents=True, exist_ok=True)
    for index in kept:
        slices = {kind: _slice(volume.tensor, index, spacing) for kind, volume in images.items()}
        rng = np.random.default_rng((zlib.crc32(f"{folder.name} {study}".encode()), index))
        forward, backward = known_motion(rng, slices["t1"].grid)
        mask = _slice(head, index, spacing)
        found = {"source": slices["t1"], "registered": warp(slices["t1"], forward), "source_brain": mask}
        found["target_brain"] = warp(mask, forward, mode="label", outside="zeros")
        for kind in ("t2", "flair"):
            found |= {f"counterpart_{kind}": slices[kind], f"target_{kind}": warp(slices[kind], forward)}
        for name, volume in found.items():
            (write_labels if "brain" in name else write)(volume, out / f"{name}_{index:02d}.nii.gz")
        write_displacement(forward, out / f"displacement_{index:02d}.nii.gz")
        write_displacement(backward, out / f"inverse_{index:02d}.nii.gz")
    save_json({"slices": kept}, done)
    return kept


def _aligned(folder: Path, study: str) -> dict[str, Volume]:
    """The three modalities on FLAIR's slices, axes R, A, S."""
    flair = read_image(folder / f"{study}_FLAIR.nii.gz")
    grid = flair.grid.canonical()
    found = {"flair": resample(flair, grid)}
    for kind in ("t1", "t2"):
        path = folder / f"{study}_{MODALITIES[kind]}_intrastudy_to_FLAIR.txt"
        matrix = read_affine(path)
        if matrix is None:
            raise InputError(f"{path} holds no affine transform; expected one of ITK")
        moving = read_image(folder / f"{study}_{MODALITIES[kind]}.nii.gz")
        found[kind] = warp(moving, Displacement.from_affine(matrix, grid), outside="zeros")
    return found


def _head(body: torch.Tensor) -> torch.Tensor:
    """The body with what its skin encloses, slice by slice; uint8."""
    slices = [ndimage.binary_closing(part, iterations=4) for part in body[0, 0].movedim(-1, 0).numpy()]
    whole = np.stack([ndimage.binary_fill_holes(part) for part in slices], axis=-1)
    return torch.from_numpy(whole.astype(np.uint8))[None, None]


def _shown(head: torch.Tensor, images: dict[str, Volume]) -> list[int]:
    """Slices with enough of a head that every modality reaches: a scan may end below another's."""
    kept = []
    for index in range(head.shape[-1]):
        inside = head[0, 0, ..., index] > 0
        if inside.float().mean() > 0.15:
            reached = [float((image.tensor[0, 0, ..., index][inside] != 0).float().mean()) for image in images.values()]
            kept += [index] if min(reached) > 0.9 else []
    return kept


def _slice(tensor: torch.Tensor, index: int, spacing: np.ndarray) -> Volume:
    """A slice as an image of its own, in the plane (R, A)."""
    flat = tensor[..., index].contiguous()
    return Volume(flat, Grid.regular(tuple(flat.shape[2:]), tuple(float(s) for s in spacing), centred=True))
