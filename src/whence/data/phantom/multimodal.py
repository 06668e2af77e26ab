"""The multimodal phantom: one head in two modalities, a known deformation between them.

The source shows a random person as it lies; the target shows the same person in another modality through
phi = A o exp(v): a random affine after a random elastic deformation, by the protocol that IMSE's
evaluation has (``data/perturbation.py``). Both are sampled once from the template's maps, so that the
displacement and its inverse, exp(-v) o A^-1, are known exactly. Either geometry is written in both
modalities: ``counterpart`` is the target's modality on the source's geometry, ``registered`` the source's
modality on the target's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whence import kernels
from whence.data.perturbation import known_motion
from whence.data.phantom.anatomy import anatomy, head_grid, reached
from whence.data.phantom.head import distance_map, tissue_shares
from whence.data.phantom.landmarks import draw_landmarks
from whence.data.phantom.modalities import LABEL_NAMES, MODALITIES, SKULL, image_of
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.subject import draw_subject
from whence.field import Displacement
from whence.space import Grid, Volume

__all__ = ["FILES", "LABEL_NAMES", "OPTIONS", "MultimodalCase", "columns", "make_case"]

FIELD_OF_VIEW = 232.0  # mm: room for the scalp of the widest subject, moved
LEVELS = (0, 26)  # axial levels (mm) that show ventricles and deep grey matter
LANDMARKS = 30
VERSION = 1  # goes up when the same seed gives other bytes
OPTIONS = {"source": ("t1", tuple(MODALITIES)), "target": ("t2", tuple(MODALITIES))}
FILES = {
    "source": "source.nii.gz",
    "target": "target.nii.gz",
    "counterpart": "counterpart.nii.gz",
    "registered": "registered.nii.gz",
    "source_labels": "source_labels.nii.gz",
    "target_labels": "target_labels.nii.gz",
    "source_brain": "source_brain.nii.gz",
    "target_brain": "target_brain.nii.gz",
    "source_points": "source_points.csv",
    "target_points": "target_points.csv",
    "displacement": "displacement.nii.gz",
    "inverse": "inverse.nii.gz",
}
ALSO: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class MultimodalCase:
    """One pair; every image on one grid, intensities float32, labels uint8.

    ``displacement`` on the target's grid into the source, ``inverse`` the other way. Labels as
    ``LABEL_NAMES`` has them, 0 air. Points are (30, D) in RAS mm, in the brain. ``level`` is the template's axial
    level in mm (2D).
    """

    source: Volume
    target: Volume
    counterpart: Volume
    registered: Volume
    displacement: Displacement
    inverse: Displacement
    source_labels: Volume
    target_labels: Volume
    source_brain: Volume
    target_brain: Volume
    source_points: np.ndarray
    target_points: np.ndarray
    modalities: tuple[str, str]
    level: int | None


def make_case(seed: int, index: int, size: int, dims: int, source: str = "t1", target: str = "t2") -> MultimodalCase:
    """Case ``index`` of a seed with ``size`` voxels a side, the same bytes at each call and in any order.

    The anatomy, its motion and each modality's scans are the same whichever modalities are asked for.
    """
    streams = _streams(seed, index)
    grid = head_grid(size, dims, FIELD_OF_VIEW)
    spacing = float(grid.spacing[0])
    level = int(streams["subject"].integers(LEVELS[0], LEVELS[1] + 1))
    subject = draw_subject(streams["subject"], anatomy(dims, spacing, level), grid)
    hull = distance_map(dims, level)
    carried = np.concatenate(
        [
            smooth_noise(streams["look"], grid.shape, max(0.8, 2.5 / spacing)),
            smooth_noise(streams["look"], grid.shape, 28.0 / spacing),
        ]
    ).astype(np.float32)
    forward, backward = known_motion(streams["motion"], grid)

    views = {}
    for name, field in (("source", Displacement.identity(grid)), ("target", forward)):
        points = kernels.sample(subject.template_points[None], reached(field)[None], "linear", "border")[0]
        grain, uneven = kernels.sample(torch.from_numpy(carried)[None], reached(field)[None], "linear", "border")[
            0
        ].numpy()
        maps = subject.template.sample(points).numpy()
        depth = hull.sample(points).numpy()[0]
        shares, marrow = tissue_shares(maps, depth, points.numpy(), uneven, spacing, level if dims == 2 else None)
        views[name] = (shares, marrow, grain)

    def scan(view: str, modality: str) -> Volume:
        rng = streams[f"{view} {modality}"]
        return _volume(image_of(MODALITIES[modality], rng, *views[view], spacing), grid)

    images = {
        "source": scan("source", source),
        "target": scan("target", target),
        "counterpart": scan("source", target) if target != source else None,
        "registered": scan("target", source) if target != source else None,
    }
    labels = {view: shares.argmax(axis=0).astype(np.uint8) for view, (shares, _, _) in views.items()}
    brain = {view: (found > 0) & (found < SKULL) for view, found in labels.items()}
    nothing = np.zeros(grid.shape, dtype=bool)
    target_points = draw_landmarks(streams["points"], grid, brain["target"].astype(np.uint8), nothing, LANDMARKS)
    return MultimodalCase(
        source=images["source"],
        target=images["target"],
        counterpart=images["counterpart"] or images["source"],
        registered=images["registered"] or images["target"],
        displacement=forward,
        inverse=backward,
        source_labels=_volume(labels["source"], grid),
        target_labels=_volume(labels["target"], grid),
        source_brain=_volume(brain["source"].astype(np.uint8), grid),
        target_brain=_volume(brain["target"].astype(np.uint8), grid),
        source_points=forward(target_points),
        target_points=target_points,
        modalities=(source, target),
        level=level if dims == 2 else None,
    )


def columns(case: MultimodalCase) -> dict[str, Any]:
    """The case as a row of the pairs table: what ``FILES`` names, and the modalities."""
    source, target = case.modalities
    return {name: getattr(case, name) for name in FILES} | {"source_modality": source, "target_modality": target}


def _streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    scans = [f"{view} {modality}" for view in ("source", "target") for modality in MODALITIES]
    names = ("subject", "motion", "look", "points", *scans)
    children = np.random.SeedSequence((seed, index, 7)).spawn(len(names))
    return {name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)}


def _volume(array: np.ndarray, grid: Grid) -> Volume:
    return Volume(torch.from_numpy(np.ascontiguousarray(array))[None, None], grid)
