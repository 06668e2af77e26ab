"""The domain phantoms: two populations seen by two devices, which differ in intensity and in the shape of things.

Every person is drawn from one of two populations and scanned by its device. Who belongs to the source also has the
scan that the target's device would make of them as a member of its population, at the same rank of every trait, so
that the true correspondence is known: displacement = exp(v_source)^-1 o exp(v_target), exactly invertible. In
``pairs.csv`` the held-out rows name that partner and those to train on do not; ``paired.csv`` names it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch

from whence.data.phantom.motion import two_dates
from whence.data.phantom.population import DOMAINS
from whence.field import Displacement
from whence.space import Grid, Volume

VERSION = 1  # goes up when the same seed gives other bytes
# Module, class, and the names by which it knows the devices of both domains.
ANATOMIES = {
    "oct": ("whence.data.phantom.retina", "Retina", ("source", "target")),
    "brain": ("whence.data.phantom.ageing", "Ageing", ("t1", "t2")),
    "heart": ("whence.data.phantom.chambers", "Chambers", ("source", "target")),
}
OPTIONS = {"anatomy": ("oct", tuple(ANATOMIES)), "target": ("t2", ("t2", "ct"))}
FILES = {
    "source": "source.nii.gz",
    "source_labels": "source_labels.nii.gz",
    "target": "target.nii.gz",
    "target_labels": "target_labels.nii.gz",
    "displacement": "displacement.nii.gz",
    "inverse": "inverse.nii.gz",
}
# What only a person of the source's domain has.
PARTNER = ("target", "target_labels", "displacement", "inverse")
ALSO: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class DomainCase:
    """A person's scan and labels; of a person of the source's domain the partner in the target's as well.

    Images float32, labels uint8, all on one grid. ``displacement`` on the partner's grid into the scan, ``inverse`` the
    other way. ``ranks``: how many standard deviations each trait lies above its population's mean.
    """

    domain: str
    source: Volume
    source_labels: Volume
    target: Volume | None
    target_labels: Volume | None
    displacement: Displacement | None
    inverse: Displacement | None
    ranks: dict[str, float]


def label_names(anatomy: str, target: str) -> dict[int, str]:
    """Names of the labels of an anatomy."""
    return _module(anatomy).LABEL_NAMES


def make_case(seed: int, index: int, size: int, dims: int, anatomy: str = "oct", target: str = "t2") -> DomainCase:
    """Case ``index`` of a seed with ``size`` voxels a side, the same bytes at each call and in any order.

    Even cases are of the source's domain, odd ones of the target's. ``target`` is the brain's modality there.
    """
    module, (_, kind, devices) = _module(anatomy), ANATOMIES[anatomy]
    devices = (devices[0], target) if anatomy == "brain" else devices
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence((seed, index, 11)).spawn(4)]
    grid = module.grid(size, dims)
    person = getattr(module, kind)(streams[0], grid)
    ranks = {name: float(np.clip(streams[1].standard_normal(), -2.5, 2.5)) for name in module.TRAITS}
    velocities = [
        person.velocity({name: trait.of(domain, ranks[name]) for name, trait in module.TRAITS.items()})
        for domain in DOMAINS
    ]
    maps = two_dates(*velocities, grid)
    domain = DOMAINS[index % 2]
    if domain == "target":
        scan = person.scan(maps.after, devices[1], streams[2])
        return DomainCase(domain, *_volumes(scan, grid), None, None, None, None, ranks)
    here, there = person.scan(maps.before, devices[0], streams[2]), person.scan(maps.after, devices[1], streams[3])
    fields = (maps.displacement, maps.inverse)
    return DomainCase(domain, *_volumes(here, grid), *_volumes(there, grid), *fields, ranks)


def columns(case: DomainCase) -> dict[str, Any]:
    """The case as a row of the pairs table; None for a file that it has not."""
    facts = {f"{name}_rank": round(rank, 4) for name, rank in case.ranks.items()}
    return {name: getattr(case, name) for name in FILES} | {"domain": case.domain} | facts


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """``pairs.csv`` whose training rows know no partner, and ``paired.csv`` of the source's domain, which all do."""
    unpaired = [
        {name: "" if row["split"] == "train" and name in PARTNER else value for name, value in row.items()}
        for row in rows
    ]
    return {"pairs.csv": unpaired, "paired.csv": [row for row in rows if row["domain"] == "source"]}


def _module(anatomy: str) -> ModuleType:
    return import_module(ANATOMIES[anatomy][0])


def _volumes(scan: tuple[np.ndarray, np.ndarray], grid: Grid) -> tuple[Volume, Volume]:
    image, labels = (Volume(torch.from_numpy(np.ascontiguousarray(array))[None, None], grid) for array in scan)
    return image, labels
