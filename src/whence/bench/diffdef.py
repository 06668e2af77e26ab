"""Conditional atlases beside the true mean shapes of the cohort phantom, which nobody learns from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.bench.cost import step_cost
from whence.bench.perceptual import perceptual_distance
from whence.bench.rows import Row, mean_cell
from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import Pair, PairsTable, read_pairs, write_pairs
from whence.data.phantom import write_phantom
from whence.data.phantom.cohort import MEANS
from whence.data.phantom.lifespan import LABEL_NAMES, VENTRICLES, lifespan, traits_of
from whence.field import Displacement, compose, folding, invert, jacobian_determinant, warp
from whence.io import read_displacement, read_labels
from whence.metrics import label_overlap
from whence.models import find_method
from whence.registration import DiffeomorphicSettings, register_diffeomorphic
from whence.space import Volume
from whence.train.evaluate import row_generator
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load


@dataclass(frozen=True)
class Made:
    """An atlas: its displacement into the general one, on its grid, and what it shows."""

    field: Displacement
    image: Volume


# What gives the atlas of a person's conditions.
Atlas = Callable[[Mapping[str, float]], Made]
OURS: dict[str, Any] = {"method": "diffdef"}
# Ages that nobody who is learnt from has, in the rows that ask for them: within the others' and beyond.
WITHIN, BEYOND = (58.0, 70.0), (76.0, 91.0)
KINDS: dict[str, dict[str, Any]] = {
    "the general atlas": {"by": "nothing"},
    "the true mean": {"by": "truth"},
    "the true mean's image, its field found": {"by": "picture"},
    "register and average, 15 neighbours": {"by": "average", "count": 15},
    "register and average, 60 neighbours": {"by": "average", "count": 60},
    "conditional templates (VoxelMorph)": {"method": "condtemplate"},
    "latent diffusion of intensities": {**OURS, "field": "image"},
    "Diff-Def": OURS,
    "Diff-Def, a displacement": {**OURS, "field": "displacement"},
    "Diff-Def, the published gradient, no anchor": {**OURS, "gradient": "network", "anchor": 0.0},
    "Diff-Def, the decoder told nothing": {**OURS, "told": False, "maps": 0},
    "Diff-Def, the decoder without maps": {**OURS, "maps": 0},
    "Diff-Def without morphology preservation": {**OURS, "morphology": 0.0},
    "Diff-Def, 1 neighbour": {**OURS, "neighbours": 1},
    "Diff-Def, 5 neighbours": {**OURS, "neighbours": 5},
    "Diff-Def, 30 neighbours": {**OURS, "neighbours": 30},
    "Diff-Def, nobody of 58 to 70 seen": {**OURS, "unseen": WITHIN},
    "Diff-Def, nobody above 76 seen": {**OURS, "unseen": BEYOND},
    "Diff-Def, told the ventricles' volume as well": {**OURS, "conditions": ["age", "ventricular_volume"]},
}
VOLUMES = (
    "the general atlas",
    "the true mean",
    "the true mean's image, its field found",
    "register and average, 15 neighbours",
    "Diff-Def",
)
# Steps of the published setting, of each of its stages: what one of them costs.
PUBLISHED = ("autoencoder", "registration", "diffusion")
# The default of slices smooths a field by 2 voxels, here 5 mm, which costs the mean of true fields 12 % of the volume.
SHARP = DiffeomorphicSettings(smooth_total=0.5)
# People whose mean displacement from an atlas is its distance from the middle; of the 50 held out, those nearest in age
# to the oldest are 14 years younger in the mean, which would reward an atlas that stays behind.
NEAR = 60


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"Conditional atlases{', smoke version' if quick else ' (cohort phantom, 50 held-out people)'}"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 12 steps on 24 people. It shows that every row runs; its figures mean nothing."
    black = torch.zeros(1, 1, 64, 64)
    known = perceptual_distance(black, black) is not None
    absent = "" if known else "LPIPS is left out: the weights of its network, or torchvision, are not on this machine. "
    return (
        "Volume error: of the ventricles' volume of the atlas against that of the age's true mean shape, mean "
        "and largest over 13 ages from 18 to 90; rank: of the volumes with age (Spearman). Field error: mean "
        "distance in the brain between the atlas's field and the true mean's. Dice: of the four carried labels "
        "with those of held-out people, each with the atlas of their own age, unregistered, so that their own "
        "variation bounds it (the true mean's Dice). Folded: share of voxels of determinant 0 or less; "
        "smoothness: mean length of the determinant's gradient; centrality: length of the mean displacement from "
        f"the atlas to the {NEAR} people nearest in age, by their true fields, which nobody learns from. Templates and "
        "intensities have no field; theirs is found by registration to the general atlas, and the true mean's image "
        "says what can be found. Without morphology preservation the anchor alone moves the field. Options were chosen "
        "on this cohort by its truth, Diff-Def's alone. Unseen: the volume error at "
        "the ages that were held out, 60 and 66 between others (interpolated), 78, 84 and 90 beyond them "
        "(extrapolated). Age and volume: at 30, 54 and 78 years, a deviation of the ventricles below and above. "
        f"{absent}A published step: of one volume on noise, at 160 x 224 x 160. Published (UK Biobank): "
        "Diff-Def is first in all of Dice, folding, smoothness and centrality; the summary at hand has no figures."
    )


def rows(quick: bool) -> list[Row]:
    """Slices, then volumes."""
    flat = {"n": 24, "size": 32, "dims": 2, "steps": 12} if quick else {"n": 1600, "size": 64, "dims": 2, "steps": 0}
    # Of 700 people the mean of even their true fields is half as far from the law's as the general atlas is.
    deep = flat | {"dims": 3}
    found = [Row(f"2D: {name}", {**flat, **kind}) for name, kind in KINDS.items()]
    found += [Row(f"3D: {name}", {**deep, **KINDS[name]}) for name in VOLUMES]
    # A step of these sizes is no smoke test.
    stages = () if quick else enumerate(PUBLISHED)
    return [*found, *(Row(f"the published setting, a step of the {name}", {"stage": n}) for n, name in stages)]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Make or train what gives the atlas of an age, and compare it with the true means and with people."""
    settings = dict(row.settings)
    if "stage" in settings:
        return _published(settings["stage"])
    n, size, dims, steps = (settings.pop(name) for name in ("n", "size", "dims", "steps"))
    table = write_phantom("cohort", n, size, data / f"cohort_{n}_{size}_{dims}", dims)
    people, means = read_pairs(table), read_pairs(table.parent / MEANS)
    by, unseen = settings.pop("by", ""), settings.pop("unseen", None)
    if by:
        atlas = _unlearnt(by, people, settings.get("count", 0), size)
    else:
        known = _without(table, unseen) if unseen else table
        # All that learn from everybody begin with one autoencoder and one registration network.
        atlas = _learnt(settings, known, dims, steps, work, None if unseen else table.parent / "begun")
    return _judged(atlas, people, means, unseen, "ventricular_volume" in row.settings.get("conditions", ()))


def _published(stage: int) -> dict[str, str]:
    """What a step of a stage of the published setting costs, at 160 x 224 x 160."""
    model, _ = read_recipe("diffdef-paper", find_method("diffdef"))
    seconds, memory = step_cost("diffdef", "diffdef-paper", 3, sum(find_method("diffdef").stages(model)[:stage]))
    if memory == float("inf"):
        return {"a step [s]": "", "memory [GiB]": "more than this machine has"}
    return {"a step [s]": f"{seconds:.0f}", "memory [GiB]": f"{memory:.1f}"}


def _judged(
    atlas: Atlas, people: PairsTable, means: PairsTable, unseen: tuple[float, float] | None, told_volume: bool
) -> dict[str, str]:
    labels = read_labels(means.rows[0].path("source_labels"))
    alone = [row for row in means if "ventricular_volume" not in row.conditions]
    ages = [row.conditions["age"] for row in alone]
    started = time.perf_counter()
    fields = [atlas({"age": age}).field for age in ages]
    seconds = (time.perf_counter() - started) / len(ages)
    true = [read_displacement(row.path("displacement")) for row in alone]
    volumes, wanted = ([_volume(labels, field) for field in part] for part in (fields, true))
    wrong = [100 * abs(v / w - 1) for v, w in zip(volumes, wanted, strict=True)]
    brain = labels.tensor > 0
    apart = [float(_distance(f, t)[brain].mean()) for f, t in zip(fields, true, strict=True)]
    tested = people.split("test")
    shown = [atlas(row.conditions) for row in tested]
    dice = [_dice(warp(labels, made.field, mode="label"), row) for made, row in zip(shown, tested, strict=True)]
    known = [row for row in people.split("train") if "age" in row.conditions]
    cells = {
        "volume error [%]": f"{np.mean(wrong):.1f}, at most {max(wrong):.1f}",
        "rank": f"{_spearman(ages, volumes):.3f}",
        "field error [mm]": mean_cell(apart, 2),
        "Dice": mean_cell(dice, 3),
        "folded share": f"{np.mean([folding(field, brain) for field in fields]):.6f}",
        "smoothness": mean_cell([_roughness(field, brain) for field in fields], 4),
        "centrality [mm]": mean_cell([_off_centre(f, a, known, brain) for f, a in zip(fields, ages, strict=True)], 2),
    }
    far = [_unlike(made.image, row) for made, row in zip(shown, tested, strict=True)]
    if all(value is not None for value in far):
        cells["LPIPS"] = mean_cell([value for value in far if value is not None], 4)
    cells["an atlas [s]"] = f"{seconds:.2f}"
    if told_volume:
        both = [row for row in means if "ventricular_volume" in row.conditions]
        pairs = [
            (_volume(labels, atlas(row.conditions).field), _volume(labels, read_displacement(row.path("displacement"))))
            for row in both
        ]
        off = [100 * abs(found / wanted - 1) for found, wanted in pairs]
        cells["age and volume: volume error [%]"] = f"{np.mean(off):.1f}, at most {max(off):.1f}"
    if unseen:
        band = [error for error, age in zip(wrong, ages, strict=True) if unseen[0] <= age <= unseen[1]]
        cells["unseen: volume error [%]"] = f"{np.mean(band):.1f}, at most {max(band):.1f}"
    return cells


def _unlearnt(by: str, people: PairsTable, count: int, size: int) -> Atlas:
    """The atlas that no network gives: the general one, the true mean's, or an average of people."""
    general = read_image(people.rows[0].path("source"))

    def nothing(conditions: Mapping[str, float]) -> Made:
        return _carried(general, Displacement.identity(general.grid))

    def truth(conditions: Mapping[str, float]) -> Made:
        return _carried(general, _true(size, general.dims, conditions))

    def picture(conditions: Mapping[str, float]) -> Made:
        return _found(truth(conditions).image, general)

    averaged = _Average(people.split("train"), count)

    def average(conditions: Mapping[str, float]) -> Made:
        return _carried(general, averaged(conditions))

    return {"nothing": nothing, "truth": truth, "picture": picture, "average": average}[by]


def _learnt(
    settings: dict[str, Any], table: Path, dims: int, steps: int, work: Path, begun: Path | None = None
) -> Atlas:
    """The atlas that a trained method gives, by its own field or one that is found for it."""
    settings = dict(settings)
    method = settings.pop("method")
    chosen = find_method(method)
    if steps:
        settings |= {"steps": steps, "save_every": steps}
        settings |= {"vae_steps": 4, "registration_steps": 4, "solver_steps": 3} if method == "diffdef" else {}
    recipe = f"{method}-cpu" if dims == 2 or method != "diffdef" else f"{method}-cpu-3d"
    if method == "diffdef" and begun:
        settings = _begun(settings, table, recipe, begun)
    predictor = load(fit(method, table, work / "run", *read_recipe(recipe, chosen, **settings)))
    general = read_image(read_pairs(table).rows[0].path("source"))

    def atlas(conditions: Mapping[str, float]) -> Made:
        trace = predictor.predict(general, row_generator(0, "atlas"), conditions=conditions)
        return (
            Made(trace.displacement, trace.image) if trace.info["kind"] == "predicted" else _found(trace.image, general)
        )

    return atlas


def _begun(settings: dict[str, Any], table: Path, recipe: str, kept: Path) -> dict[str, Any]:
    """Settings of the third stage alone, on the first two of a run that all rows of a cohort begin with."""
    method = find_method("diffdef")
    sizes = {name: settings[name] for name in ("vae_steps", "registration_steps") if name in settings}
    model, train = read_recipe(recipe, method, **sizes)
    first = sum(method.stages(model))
    fit("diffdef", table, kept, model, replace(train, steps=first + 1))
    return {**settings, "steps": settings.get("steps", train.steps) - first, "pretrained": str(kept)}


def _carried(general: Volume, field: Displacement) -> Made:
    return Made(field, warp(general, field))


def _without(table: Path, unseen: tuple[float, float]) -> Path:
    """The table without those to learn from whose age lies between two, nor those whose age is not known."""
    rows, (least, most) = read_pairs(table), unseen
    kept = [
        {"id": row.id, "split": row.split, **row.files, **row.conditions}
        for row in rows
        if row.split != "train" or not least <= row.conditions.get("age", least) <= most
    ]
    return write_pairs(table.parent / f"without_{least:g}_{most:g}.csv", kept)


class _Average:
    """The general atlas in the mean shape of those nearest in age, each registered to it, once."""

    def __init__(self, people: PairsTable, count: int) -> None:
        self.people = [row for row in people if "age" in row.conditions]
        self.count = count
        self.found: dict[str, torch.Tensor] = {}

    def __call__(self, conditions: Mapping[str, float]) -> Displacement:
        age = conditions["age"]
        near = sorted(self.people, key=lambda row: abs(row.conditions["age"] - age))[: self.count]
        atlas = read_image(near[0].path("source"))
        for row in near:
            if row.id not in self.found:
                person = read_image(row.path("target"))
                self.found[row.id] = register_diffeomorphic(atlas, person, settings=SHARP)[0].tensor
        total = torch.stack([self.found[row.id] for row in near])
        # From the atlas to people; the atlas in their mean shape is seen through the inverse.
        return invert(Displacement(total.mean(dim=0), atlas.grid))


def _true(size: int, dims: int, conditions: Mapping[str, float]) -> Displacement:
    """The true mean's field of an age."""
    brain = lifespan(size, dims)
    return brain.maps(brain.velocity(traits_of(conditions["age"])))[0]


def _found(image: Volume, general: Volume) -> Made:
    """An atlas without a field, and the one that registration finds for it."""
    return Made(register_diffeomorphic(image, general, settings=SHARP)[0], image)


def _unlike(image: Volume, row: Pair) -> float | None:
    """LPIPS of an atlas and a person's scan, in the plane; None without its weights."""
    pictures = (Intensity.of(seen).normalise(seen.tensor) for seen in (image, read_image(row.path("target"))))
    return perceptual_distance(*pictures)


def _volume(labels: Volume, field: Displacement) -> float:
    """Volume of the ventricles, carried, in voxels: shares, so that no voxel's edge decides."""
    share = replace(labels, tensor=(labels.tensor == VENTRICLES).float())
    return float(warp(share, field).tensor.sum())


def _dice(carried: Volume, row: Pair) -> float:
    found = label_overlap(carried, read_labels(row.path("target_labels")), sorted(LABEL_NAMES))
    return float(np.mean([found[label][0] for label in sorted(LABEL_NAMES)]))


def _distance(one: Displacement, other: Displacement) -> torch.Tensor:
    """Distance in mm (1, 1, *shape) between the points that two fields name."""
    return Displacement(one.tensor - other.tensor, one.grid).magnitude()


def _roughness(field: Displacement, brain: torch.Tensor) -> float:
    slopes = torch.gradient(jacobian_determinant(field)[0, 0])
    return float(torch.stack(slopes).square().sum(dim=0).sqrt()[brain[0, 0]].mean())


def _off_centre(field: Displacement, age: float, people: Sequence[Pair], brain: torch.Tensor) -> float:
    """Length in mm of the mean displacement from an atlas to people about its age, by their true fields."""
    near = sorted(people, key=lambda row: abs(row.conditions["age"] - age))[:NEAR]
    # Of the atlas's points those of the person: through the general atlas and the person's true field back.
    moved = [compose(field, read_displacement(row.path("inverse"))).tensor for row in near]
    mean = Displacement(torch.stack(moved).mean(dim=0), field.grid)
    return float(mean.magnitude()[brain].mean())


def _spearman(ages: list[float], volumes: list[float]) -> float:
    from scipy import stats

    return float(stats.spearmanr(ages, volumes).statistic) if len(set(volumes)) > 1 else 0.0
