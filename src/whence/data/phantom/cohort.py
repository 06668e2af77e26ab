"""The cohort phantom: people of 18 to 90 whose anatomy follows age and ventricular volume through known laws.

A row's source is the general atlas, its target a person's scan, its displacement the true map of the scan into the
atlas. ``means.csv`` names the true mean shape of conditions, with its field: what a conditional atlas is to be. Of the
rows to train on about one in ten lacks the volume and one in twenty the age.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whence import kernels
from whence.data.phantom.anatomy import reached
from whence.data.phantom.lifespan import AGES, LABEL_NAMES, Lifespan, lifespan, traits_of
from whence.data.phantom.modalities import MODALITIES, image_of
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.write import REFERENCE
from whence.field import Displacement, jacobian_determinant
from whence.space import Volume

VERSION = 1  # goes up when the same seed gives other bytes
__all__ = ["LABEL_NAMES", "CohortCase", "columns", "make_case", "make_reference", "references", "tables"]
FILES = {
    "target": "image.nii.gz",
    "target_labels": "labels.nii.gz",
    "displacement": "displacement.nii.gz",
    "inverse": "inverse.nii.gz",
}
ALSO: dict[str, str] = {}
GENERAL, MEAN = "general", "mean"
MEANS = "means.csv"
# Deviation (mm) and width (mm) of what is one's own.
VARIATION = ((1.5, 26.0), (0.6, 9.0))
LEAST = 0.05  # least determinant of a person's map


@dataclass(frozen=True, eq=False)
class CohortCase:
    """A person, or a population's mean: image float32, labels uint8, their maps into the general atlas and back.

    ``ventricular_volume`` is that of the mean shape of their age and their ventricles' trait, in ml (see ``lifespan``).
    """

    target: Volume
    target_labels: Volume
    displacement: Displacement
    inverse: Displacement
    conditions: dict[str, float]


def make_case(seed: int, index: int, size: int, dims: int) -> CohortCase:
    """Person ``index`` of a seed on a grid of ``size`` voxels a side, the same bytes at each call and in any order."""
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence((seed, index, 13)).spawn(3)]
    brain = lifespan(size, dims)
    age = float(np.round(streams[0].uniform(*AGES), 1))
    mean = brain.velocity(traits_of(age, float(np.clip(streams[0].standard_normal(), -2.5, 2.5))))
    missing = streams[0].uniform()
    own = sum(
        deviation * smooth_noise(streams[1], brain.grid.shape, width / brain.spacing, dims)
        for deviation, width in VARIATION
    )
    strength = 1.0
    while True:
        fields = brain.maps(mean + strength * own)
        if min(float(jacobian_determinant(field).min()) for field in fields) >= LEAST or strength < 0.05:
            break
        strength *= 0.9
    shares = brain.shares(fields[0])
    grain = _carried(streams[2], brain, fields[0])
    image = image_of(MODALITIES["t1"], streams[2], shares, np.zeros(brain.grid.shape), grain, brain.spacing)
    conditions = {"age": age, "ventricular_volume": _volume(brain, mean)}
    if missing < 0.15:
        conditions |= {"missing": 1.0 if missing < 0.1 else 2.0}
    return CohortCase(*_volumes(brain, image, shares), *fields, conditions)


def references() -> list[str]:
    """Names of the general atlas and of the true means of a cohort, of an age alone and of both conditions."""
    ages = [*np.arange(AGES[0], AGES[1] + 1, 6.0)]
    alone = [f"{MEAN}_{age:.0f}" for age in ages]
    return [GENERAL, *alone, *(f"{MEAN}_{age}_{rank}" for age in (30, 54, 78) for rank in (-1, 1))]


def make_reference(name: str, size: int, dims: int) -> CohortCase:
    """The general atlas, or the mean shape of an age and a rank of its ventricles, without noise."""
    brain, words = lifespan(size, dims), name.split("_")
    if name == GENERAL:
        velocity, conditions = np.zeros((dims, *brain.grid.shape)), {}
    else:
        age, rank = float(words[1]), float(words[2]) if len(words) > 2 else 0.0
        velocity = brain.velocity(traits_of(age, rank))
        # Who asks for an age alone does not say the volume: it is what the answer is judged by.
        volume = "true_volume" if len(words) < 3 else "ventricular_volume"
        conditions = {"age": age, volume: _volume(brain, velocity)}
    fields = brain.maps(velocity)
    shares = brain.shares(fields[0])
    clean = 1000 * np.tensordot(np.asarray(MODALITIES["t1"].tissues), shares, axes=1)
    return CohortCase(*_volumes(brain, clean, shares), *fields, conditions)


def columns(case: CohortCase) -> dict[str, Any]:
    """The case as a row of the pairs table."""
    return {name: getattr(case, name) for name in FILES} | case.conditions


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """``pairs.csv`` of the people, and ``means.csv`` of the true means; the source of all is the general atlas."""
    general = next(row for row in rows if row["id"] == GENERAL)
    source = {"source": general["target"], "source_labels": general["target_labels"]}
    people, means = [], []
    for row in rows:
        row = row | source
        if row["split"] == REFERENCE:
            means.append(row | {"true_volume": row.get("true_volume", row.get("ventricular_volume", ""))})
            continue
        lacks = row.pop("missing", 0.0)
        if lacks and row["split"] == "train":
            row["ventricular_volume" if lacks == 1 else "age"] = ""
        people.append(row)
    return {"pairs.csv": people, MEANS: [row for row in means if row["id"] != GENERAL]}


def _carried(rng: np.random.Generator, brain: Lifespan, field: Displacement) -> np.ndarray:
    """Texture (*shape) that tissue carries along."""
    fine = smooth_noise(rng, brain.grid.shape, max(0.8, 2.5 / brain.spacing)).astype(np.float32)
    return kernels.sample(torch.from_numpy(fine)[None], reached(field)[None], "linear", "border")[0, 0].numpy()


def _volume(brain: Lifespan, velocity: np.ndarray) -> float:
    return round(brain.volume(brain.shares(brain.maps(velocity)[0])), 3)


def _volumes(brain: Lifespan, image: np.ndarray, shares: np.ndarray) -> tuple[Volume, Volume]:
    parts = (image.astype(np.float32), brain.labels(shares))
    found, labels = (Volume(torch.from_numpy(np.ascontiguousarray(p))[None, None], brain.grid) for p in parts)
    return found, labels
