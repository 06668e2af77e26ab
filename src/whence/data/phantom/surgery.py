"""The surgery phantom: a brain before and after the resection of a tumour, with exact correspondence.

Both dates are views of one anatomy through invertible maps, so that the true displacement (after ->
before) and its inverse are compositions of exponentials. Before surgery the tumour's growth has pushed
tissue, ventricles and midline away; surgery takes the tumour or the accessible part of it, the walls of
the cavity collapse and the mass effect relaxes.

How far tissue moves follows from what the first image shows: the tumour's shape, size, depth and place,
and through them the resected part. What nobody could foresee is small: the unevenness of the cut, some
per cent of the amplitudes, and a smooth drift. Within 15 mm of the cavity this residual is 12 % of the
mean displacement in 2D (128 x 128, 50 cases, 5 to 21 %) and 14 % in 3D (64 x 64 x 64, 8 to 21 %);
``residual_field`` gives both parts. There the mean displacement is 4 mm and its peak 8 mm; 60 mm away it
is 0.1 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whence import kernels
from whence.data.phantom.anatomy import BRAIN, GM, LEVELS, T1, WM, anatomy, head_grid, reached
from whence.data.phantom.appearance import Protocol, acquire, contrast, draw_protocol
from whence.data.phantom.landmarks import draw_landmarks
from whence.data.phantom.lesion import Lesion, draw_lesion
from whence.data.phantom.motion import TwoDates, pressure_flow, two_dates
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.shapes import inside
from whence.data.phantom.subject import Subject, draw_subject
from whence.field import Displacement
from whence.space import Grid, Volume

BACKGROUND, CSF, GREY, WHITE, TUMOUR, CAVITY = range(6)
LABEL_NAMES = {CSF: "CSF", GREY: "grey matter", WHITE: "white matter", TUMOUR: "tumour", CAVITY: "cavity"}
LANDMARKS = 30
VERSION = 1  # goes up when the same seed gives other bytes
FILES = {
    "source": "source.nii.gz",
    "target": "target.nii.gz",
    "source_mask": "source_mask.nii.gz",
    "target_mask": "target_mask.nii.gz",
    "source_labels": "source_labels.nii.gz",
    "target_labels": "target_labels.nii.gz",
    "source_brain": "source_brain.nii.gz",
    "target_brain": "target_brain.nii.gz",
    "source_points": "source_points.csv",
    "target_points": "target_points.csv",
    "displacement": "displacement.nii.gz",
    "inverse": "inverse.nii.gz",
}

# Columns that name a file of another column: the mask after surgery is the part that has no source.
ALSO = {"target_cavity": "target_mask"}


@dataclass(frozen=True, eq=False)
class SurgeryCase:
    """One pair; every image on one grid, intensities float32, masks and labels uint8.

    ``source`` before surgery, ``target`` after; ``displacement`` on the target's grid into the source,
    ``inverse`` the other way. Labels: 0 background, 1 CSF, 2 grey matter, 3 white matter, 4 tumour
    (after surgery: what is left of it), 5 cavity. ``source_mask`` is the tumour, ``target_mask`` the
    cavity, which has no source. Points are (30, D) in RAS mm, outside the cavity. ``extent`` is the
    resected share of the tumour, ``level`` the template's axial level in mm (2D).
    """

    source: Volume
    target: Volume
    displacement: Displacement
    inverse: Displacement
    source_mask: Volume
    target_mask: Volume
    source_labels: Volume
    target_labels: Volume
    source_brain: Volume
    target_brain: Volume
    source_points: np.ndarray
    target_points: np.ndarray
    extent: float
    level: int | None


def make_case(seed: int, index: int, size: int, dims: int) -> SurgeryCase:
    """Case ``index`` of a seed with ``size`` voxels a side, the same bytes at each call and in any order."""
    streams = _streams(seed, index)
    subject, lesion, level = _plan(streams, size, dims)
    maps = _dates(streams, subject, lesion)
    return _scan(streams, subject, lesion, maps, level)


def columns(case: SurgeryCase) -> dict[str, Any]:
    """The case as a row of the pairs table: what ``FILES`` names, and the extent of resection."""
    return {name: getattr(case, name) for name in FILES} | {"extent": round(case.extent, 4)}


def residual_field(seed: int, index: int, size: int, dims: int) -> tuple[Displacement, Displacement]:
    """The true displacement and its predictable part, the same case without its random residual."""
    both = []
    for residual in (1.0, 0.0):
        streams = _streams(seed, index)
        subject, lesion, _ = _plan(streams, size, dims, residual)
        both.append(_dates(streams, subject, lesion, residual).displacement)
    return both[0], both[1]


def _streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    names = ("subject", "lesion", "motion", "look", "before", "after", "points")
    children = np.random.SeedSequence((seed, index)).spawn(len(names))
    return {name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)}


def _plan(
    streams: dict[str, np.random.Generator], size: int, dims: int, residual: float = 1.0
) -> tuple[Subject, Lesion, int | None]:
    grid = head_grid(size, dims)
    level = int(streams["subject"].integers(LEVELS[0], LEVELS[1] + 1))
    template = anatomy(dims, float(grid.spacing[0]), level)
    subject = draw_subject(streams["subject"], template, grid)
    return subject, draw_lesion(streams["lesion"], subject, residual), level if dims == 2 else None


def _dates(
    streams: dict[str, np.random.Generator], subject: Subject, lesion: Lesion, residual: float = 1.0
) -> TwoDates:
    """Motion of both dates: set by the tumour's shape, size, depth and resected part, and a residual."""
    rng, spacing, grid = streams["motion"], subject.spacing, subject.grid
    edge = max(1.5, 0.6 * spacing)
    yielding = np.clip(subject.depth / 14, 0, 1)
    compliance = 0.25 + 0.75 * yielding**2 * (3 - 2 * yielding)
    growth = pressure_flow(inside(lesion.tumour, edge), compliance, 32.0, spacing)
    collapse = pressure_flow(inside(lesion.cavity, edge), compliance, 12.0, spacing)
    shallow = 1 - min(lesion.depth / 40, 1.0)

    chance = 1 + residual * 0.06 * rng.standard_normal(2)
    size = min(lesion.radius, 17.0)
    pushed = 1.2 + 0.32 * size
    relaxed = (0.5 + 0.4 * lesion.extent) * chance[0]
    # Walls fall no further than half the radius of what was taken.
    hollow = size * lesion.extent ** (1 / grid.dims)
    fallen = (0.4 + 0.32 * size) * (0.7 + 0.5 * shallow)
    fallen = min(fallen, 0.5 * hollow) * chance[1]

    drift = smooth_noise(rng, grid.shape, 14.0 / spacing, grid.dims)
    away = np.maximum(lesion.tumour, 0)
    drift *= 0.055 / (grid.dims - 1) ** 0.5 * (pushed + fallen) * residual * compliance * np.exp(-((away / 25) ** 2))
    after = -pushed * (1 - relaxed) * growth + fallen * collapse + drift
    return two_dates(-pushed * growth, after, grid)


def _scan(
    streams: dict[str, np.random.Generator], subject: Subject, lesion: Lesion, maps: TwoDates, level: int | None
) -> SurgeryCase:
    grid, look = subject.grid, streams["look"]
    textures = np.concatenate(
        [
            smooth_noise(look, grid.shape, max(0.8, 2.2 / subject.spacing)),
            smooth_noise(look, grid.shape, max(0.8, 3.5 / subject.spacing), 2),
        ]
    )
    necrotic = look.random() < 0.8
    bleeds = look.random() < 0.5
    carried = np.concatenate([np.stack([lesion.tumour, lesion.cavity, lesion.oedema]), textures]).astype(np.float32)
    before = _View(subject, maps.before, carried, draw_protocol(streams["before"]))
    after = _View(subject, maps.after, carried, draw_protocol(streams["after"]))

    clean = before.tissue(streams["before"], 1.0)
    clean = before.with_tumour(clean, necrotic)
    source = acquire(streams["before"], clean, before.protocol, subject.spacing)
    clean = after.tissue(streams["after"], 0.5)
    clean = after.with_tumour(clean, necrotic)
    clean = after.with_cavity(clean, bleeds)
    target = acquire(streams["after"], clean, after.protocol, subject.spacing)

    source_labels = before.labels(cavity=False)
    target_labels = after.labels(cavity=True)
    target_points = draw_landmarks(streams["points"], grid, target_labels, target_labels == CAVITY, LANDMARKS)
    return SurgeryCase(
        source=_image(source, grid),
        target=_image(target, grid),
        displacement=maps.displacement,
        inverse=maps.inverse,
        source_mask=_image(source_labels == TUMOUR, grid),
        target_mask=_image(target_labels == CAVITY, grid),
        source_labels=_image(source_labels, grid),
        target_labels=_image(target_labels, grid),
        source_brain=_image(source_labels > 0, grid),
        target_brain=_image(target_labels > 0, grid),
        source_points=maps.displacement(target_points),
        target_points=target_points,
        extent=lesion.extent,
        level=level,
    )


class _View:
    """The anatomy and its lesion as one date's grid shows them."""

    def __init__(self, subject: Subject, date: Displacement, carried: np.ndarray, protocol: Protocol) -> None:
        self.maps = subject.seen_from(date)
        self.protocol = protocol
        self.spacing = subject.spacing
        there = kernels.sample(torch.from_numpy(carried)[None], reached(date)[None], "linear", "border")[0].numpy()
        self.tumour, self.cavity, self.oedema, self.grain, self.rim, self.patches = there

    def tissue(self, rng: np.random.Generator, swelling: float) -> np.ndarray:
        """Brain with its texture and the oedema that is there."""
        clean = contrast(self.maps[T1], self.protocol)
        own = smooth_noise(rng, clean.shape, max(0.8, 2.2 / self.spacing))[0]
        clean += self.protocol.texture * clean * (0.9 * self.grain + 0.4 * own)
        return clean * (1 - 0.38 * swelling * self.oedema)

    def with_tumour(self, clean: np.ndarray, necrotic: bool) -> np.ndarray:
        """Enhancing rim of uneven thickness around a necrotic core, or patchy solid enhancement."""
        edge = 0.35 * self.spacing
        thickness = np.clip(2.6 + 1.1 * self.rim, max(1.2, 0.9 * self.spacing), 6.0)
        core = inside(self.tumour + thickness, edge) * (1.0 if necrotic else 0.45)
        rim = self.protocol.enhancement * (1 + 0.10 * self.patches)
        dead = (self.protocol.csf + 0.16) * (1 + 0.15 * self.patches + 0.1 * self.rim)
        share = inside(self.tumour, edge)
        return clean + share * (rim + core * (dead - rim) - clean)

    def with_cavity(self, clean: np.ndarray, bleeds: bool) -> np.ndarray:
        """Fluid in the cavity and, sometimes, blood along parts of its wall."""
        edge = 0.35 * self.spacing
        fluid = self.protocol.csf * (1.1 + 0.06 * self.patches)
        if bleeds:
            along = inside(np.abs(self.cavity) - 2.2, 0.5) * inside(0.2 - self.patches, 0.25)
            clean = clean + along * self.maps[BRAIN] * (1.35 - clean)
        return clean + inside(self.cavity + (1.2 if bleeds else 0.0), edge) * (fluid - clean)

    def labels(self, cavity: bool) -> np.ndarray:
        """Tissue classes (*shape), uint8."""
        grey, white, brain = self.maps[GM], self.maps[WM], self.maps[BRAIN]
        fluid = np.clip(brain - grey - white, 0, 1)
        tissue = np.stack([fluid, grey, white]).argmax(axis=0) + CSF
        labels = np.where(brain > 0.5, tissue, BACKGROUND)
        labels[(self.tumour < 0) & (brain > 0.5)] = TUMOUR
        if cavity:
            labels[(self.cavity < 0) & (brain > 0.5)] = CAVITY
        return labels.astype(np.uint8)


def _image(array: np.ndarray, grid: Grid) -> Volume:
    array = array.astype(np.uint8) if array.dtype == bool else array
    return Volume(torch.from_numpy(np.ascontiguousarray(array))[None, None], grid)
