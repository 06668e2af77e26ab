"""Plasticine's table: can a translation be traced, and what of it can be used, on two populations and two devices."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.bench.rows import Row
from whence.bench.segmenter import Segmenter, distances, segmenter
from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import PairsTable, read_pairs
from whence.data.phantom import write_phantom
from whence.field import folding, warp
from whence.io import read_displacement, read_labels, write_labels
from whence.metrics import displacement_error, image_quality, inverse_error, label_overlap
from whence.models import find_method
from whence.space import Volume
from whence.train.evaluate import predict_row
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load
from whence.train.score import nothing

ANATOMIES = {"oct": "OCT", "brain": "brain"}
KINDS: dict[str, dict[str, Any]] = {
    "the source as it is": {"method": "plasticine", "nothing": True},
    "CycleGAN": {"method": "cyclegan"},
    "RegGAN": {"method": "reggan"},
    "Pix2Pix, on pairs": {"method": "pix2pix", "paired": True},
    "diffusion without the module": {"method": "plasticine", "transformation": False, "given": 0.0},
    "Plasticine, edges": {"method": "plasticine"},
    "Plasticine": {"method": "plasticine", "structure": "labels", "labels": "found"},
    "Plasticine, true labels": {"method": "plasticine", "structure": "labels", "labels": "true"},
}
# Column: figure, digits.
SHOWN = {
    "trace Dice": ("trace_dice", 3),
    "trace HD95 [mm]": ("trace_hd95", 2),
    "downstream Dice": ("downstream", 3),
    "Dice with the partner": ("partner_dice", 3),
    "field error [mm]": ("field_error", 2),
    "SSIM with the partner": ("ssim", 3),
    "PSNR [dB]": ("psnr", 1),
    "folded share": ("folding", 6),
    "inverse error [voxel]": ("inverse", 4),
    "time [s]": ("seconds", 2),
}


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"Plasticine on the domain phantoms{', smoke version' if quick else ' (2D, 96 x 96, 25 held-out people)'}"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 10 steps on 40 people. It shows that every row runs; its figures mean nothing."
    return (
        "Mean ± standard deviation over people. Trace Dice: the source's true labels, carried by the trace, against "
        "those that a segmenter trained on the target's domain alone finds in the prediction. Downstream: the "
        "segmenter's labels on the prediction, carried back by the inverse, against the source's true ones; for the "
        "source as it is, the segmenter applied to it directly. Partner: the image that the phantom knows the person "
        "would give in the other domain, at the same rank of every trait; a translation is not told of it. Dice with "
        "the partner: the labels found in the prediction against the partner's true ones, whether the shape is the "
        "one sought; field error: mean distance of the trace from the true field over the partner's labels. Frechet "
        "and kernel distance: of the mean deepest features of that segmenter, predictions against the target domain's "
        "training images. Plasticine sees labels: of the people to train on the true ones, of those held out what "
        "another segmenter, trained on the source's domain, finds in the scan; or the true ones; or edges and no "
        "labels. All methods train 1500 steps by their CPU recipes on the same people, unpaired but for Pix2Pix, which "
        "sees the true partners; a trace that a method does not have is recovered by registration with MIND. The time "
        "is that of a prediction with its trace."
    )


def rows(quick: bool) -> list[Row]:
    """Both anatomies by each method, and Plasticine by other numbers of solver steps."""
    base: dict[str, Any] = {"cases": 400, "size": 96, "steps": 1500}
    if quick:
        base = {"cases": 40, "size": 48, "steps": 10}
    found = []
    for anatomy, shown in ANATOMIES.items():
        common = {**base, "anatomy": anatomy}
        found += [Row(f"{shown}: {name}", {**common, **kind}) for name, kind in KINDS.items()]
        plain = {**common, **KINDS["Plasticine"]}
        found += [Row(f"{shown}: Plasticine, {n} solver steps", {**plain, "solver_steps": n}) for n in (2, 5, 10, 100)]
    return found


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train what the row needs and follow its traces on the held-out people."""
    settings = dict(row.settings)
    seen = settings.pop("labels", "true")
    anatomy, cases, size = (settings.pop(name) for name in ("anatomy", "cases", "size"))
    where = data / f"{anatomy}_{cases}_{size}"
    table = write_phantom("domains", cases, size, where / "data", anatomy=anatomy)
    method, solver_steps = settings.pop("method"), settings.pop("solver_steps", None)
    unmoved, paired = settings.pop("nothing", False), settings.pop("paired", False)
    images = read_pairs(table, columns=("source",))

    def trained(domain: str, name: str) -> Segmenter:
        return segmenter(images.split("train").domain(domain), _labels(images), where / name, min(1200, 12 * cases))

    judge = trained("target", "segmenter.pt")
    people = images.split("test").domain("source")
    if seen == "found":
        people = _relabelled(people, trained("source", "segmenter_source.pt"), where / "found")
    if unmoved:
        settings["steps"] = 1
    model, train = read_recipe(f"{method}-cpu", find_method(method), save_every=settings["steps"], **settings)
    # The numbers of solver steps are of one model.
    run = fit(method, table.parent / "paired.csv" if paired else table, where / _folder(row, method), model, train)
    predictor = load(run)
    if solver_steps is not None:
        predictor.method.config = type(model)(**{**vars(model), "solver_steps": solver_steps})
    return _followed(predictor, people, images, judge, unmoved)


def _relabelled(people: PairsTable, segmenter: Segmenter, folder: Path) -> PairsTable:
    """The same people with the labels that a segmenter finds in their scans."""
    rows = []
    for row in people:
        path = folder / f"{row.id}.nii.gz"
        write_labels(segmenter.segment(read_image(row.path("source"))), path)
        rows.append(replace(row, files={**row.files, "source_labels": path}))
    return replace(people, rows=tuple(rows))


def _followed(
    predictor: Any, people: PairsTable, images: PairsTable, judge: Segmenter, unmoved: bool
) -> dict[str, Any]:
    """The cells of a method, from its traces of the held-out people, whose true labels ``images`` holds."""
    labels, found, shown = _labels(images), [], []
    known = {row.id: row for row in images}
    for row in people:
        started = time.perf_counter()
        trace = predict_row(predictor, row, people)
        seconds = time.perf_counter() - started
        trace = nothing(trace) if unmoved else trace
        truth, seen = read_labels(known[row.id].path("source_labels")), judge.segment(trace.image)
        partner, field = read_labels(row.path("target_labels")), read_displacement(row.path("displacement"))
        back = warp(seen, trace.inverse, mode="label")
        overlap = label_overlap(trace.carry(truth), seen, labels)
        # A label that nothing shows is as far away as the image is wide.
        diagonal = float(np.linalg.norm(truth.grid.spacing * truth.grid.shape))
        figures = {
            "trace_dice": _dice(overlap),
            "trace_hd95": float(np.mean([min(distance, diagonal) for _, distance in overlap.values()])),
            "downstream": _dice(label_overlap(back, truth, labels)),
            "partner_dice": _dice(label_overlap(seen, partner, labels)),
            "field_error": float(displacement_error(trace.displacement, field)[partner.tensor > 0].mean()),
            "folding": folding(trace.displacement),
            "inverse": float(inverse_error(trace.displacement, trace.inverse).mean()),
            "seconds": seconds,
        }
        found.append(figures | _beside(trace.image, read_image(row.path("target"))))
        shown.append(trace.image)
    cells: dict[str, Any] = {name: _cell([f[key] for f in found], digits) for name, (key, digits) in SHOWN.items()}
    reference = [read_image(row.path("source")) for row in images.split("train").domain("target")]
    apart = distances(judge.describe(reference), judge.describe(shown))
    return cells | {"Frechet": f"{apart['frechet']:.3f}", "kernel": f"{apart['kernel']:.3f}"}


def _beside(image: Volume, partner: Volume) -> dict[str, float]:
    """Image quality against the partner, both on their own scale, over the whole image."""
    pair = [(Intensity.of(volume).normalise(volume.tensor) + 1) / 2 for volume in (image, partner)]
    return image_quality(*pair, torch.ones_like(pair[0], dtype=torch.bool))


def _labels(table: PairsTable) -> list[int]:
    return [int(label) for label in table.label_names]


def _dice(overlap: dict[int, tuple[float, float]]) -> float:
    return float(np.mean([dice for dice, _ in overlap.values()]))


def _cell(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def _folder(row: Row, method: str) -> str:
    """Where the run lies: one for the rows that differ in how they sample alone."""
    if row.settings.get("nothing"):
        return "nothing"
    if not row.settings.get("transformation", True):
        return f"{method}_without"
    return f"{method}_{row.settings['structure']}" if "structure" in row.settings else method
