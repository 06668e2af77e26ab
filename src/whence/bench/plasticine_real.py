"""Plasticine on real images, where only what was measured is known, and on volumes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.bench.cost import cost
from whence.bench.rows import Row, mean_cell
from whence.data.pairs import Pair, read_pairs, write_pairs
from whence.data.phantom import write_phantom
from whence.data.readers import reader
from whence.errors import InputError
from whence.field import Displacement
from whence.io import read, read_labels, replacing, write, write_displacement, write_labels
from whence.models import find_method
from whence.registration import default_similarity, register_diffeomorphic
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.evaluate import beside_truth, predict_row
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load
from whence.train.score import Truth, nothing, score

# Self-similarity agrees between T1 and FLAIR where they lie; their strongest edges, of scalp and of brain, do not.
FLAIR: dict[str, Any] = {"data": "flair", "size": "[96,96]", "rescale": True, "steps": 1000}
# What the row's own source shows needs no invented device.
FLAIR |= {"given": 1.0, "aligned": 0.0, "structure": "mind"}
HEART: dict[str, Any] = {"data": "heart", "steps": 600, "structure": "edges+labels", "given": 1.0}
VOLUME: dict[str, Any] = {"data": "volume", "size": 48, "cases": 60, "steps": 150}
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "T1 to FLAIR": (FLAIR, ("nothing", "pix2pix", "plasticine")),
    "end-diastole to end-systole": (HEART, ("nothing", "registered", "plasticine")),
    "brain phantom in 3D": (VOLUME, ("nothing", "plasticine")),
}
WORDS = {
    "nothing": "the source as it is",
    "registered": "registered to the true image",
    "pix2pix": "Pix2Pix",
    "plasticine": "Plasticine",
}
SHOWN = {
    "SSIM": ("ssim", 3),
    "PSNR [dB]": ("psnr", 1),
    "field error [mm]": ("displacement_error", 2),
    "Dice": ("dice", 3),
    "folded share": ("folding", 6),
    "inverse error [voxel]": ("inverse_error", 4),
}
# Side in voxels of the window around the heart, and the slice that is held out, of those that show the left ventricle.
WINDOW, HELD_OUT = 96, 3


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"Plasticine on real images and volumes{', smoke version' if quick else ''}"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: a few steps. It shows that every row runs; its figures mean nothing."
    return (
        "Mean ± standard deviation over what is held out. T1 to FLAIR: Open MS, one patient at two dates, axial slices "
        "brought together by the affines of the data; slabs of slices are held out; the true field is none, and the "
        "field error is what the trace invents. End-diastole to end-systole: one person's short-axis slices, a window "
        "around the heart, trained on three and held out one, whose true labels at end-diastole it sees; Dice of the "
        "carried labels against those of end-systole, beside a registration (MIND) that sees the true image, which a "
        "prediction does not. Brain in 3D: the domain phantom at 48x48x48, T1 of one population to T2 of an older one, "
        "unpaired, the true labels of the source seen; Dice and field error against the partner that the phantom "
        "knows. Time and memory are of one prediction in a process of its own, libraries and weights included."
    )


def rows(quick: bool) -> list[Row]:
    """Each data set by doing nothing, by what it is compared with, and by Plasticine."""
    found = []
    for shown, (settings, kinds) in KINDS.items():
        common = {**settings, **({"steps": 2, "quick": True} if quick else {})}
        found += [Row(f"{shown}: {WORDS[kind]}", {**common, "by": kind}) for kind in kinds]
    return found


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train what the row needs and compare its traces of what is held out; those of Plasticine are kept for drawing."""
    settings = dict(row.settings)
    kind, by, quick = settings.pop("data"), settings.pop("by"), settings.pop("quick", False)
    where = data / kind
    recipe = "plasticine-labels-cpu-3d" if kind == "volume" else "plasticine-cpu"
    if kind == "volume":
        count, size = settings.pop("cases"), settings.pop("size")
        table = write_phantom("domains", *((16, 32) if quick else (count, size)), where, 3, anatomy="brain")
    else:
        table = {"flair": _flair, "heart": _heart}[kind](where)
    test = read_pairs(table, columns=("source",)).split("test").domain("source")
    run, costs = None, {}
    if by in ("plasticine", "pix2pix"):
        method, changes = find_method(by), dict(settings)
        if by == "pix2pix":
            recipe, changes = (
                "pix2pix-cpu",
                {k: v for k, v in settings.items() if k not in ("structure", "given", "aligned")},
            )
        if quick and kind == "volume":
            changes |= {"features": "[8,16]", "spatial_features": "[8,16]", "scales": "[2,1]"}
        run = fit(
            by, table, data / f"{kind}_{by}", *read_recipe(recipe, method, save_every=settings["steps"], **changes)
        )
        first = test.rows[0]
        labels = first.files.get("source_labels") if "source_labels" in load(run).method.inputs else None
        seconds, memory = cost(run, first.path("source"), labels, torch.get_num_threads())
        costs = {"time [s]": f"{seconds:.2f}", "memory [MiB]": f"{memory:.0f}"}
    predictor = None if run is None else load(run)
    found = []
    for pair in test:
        trace = _registered(pair) if predictor is None else predict_row(predictor, pair, test)
        trace = nothing(trace) if by == "nothing" else trace
        truth = Truth.of(pair, trace.image)
        found.append(score(trace, truth))
        if by == "plasticine":
            beside_truth(trace, truth, pair).save(data / "traces" / kind / pair.id)
    cells = {
        name: mean_cell([f[key] for f in found], digits)
        for name, (key, digits) in SHOWN.items()
        if all(key in f for f in found)
    }
    return cells | costs


def draw(frame: Any, out: Path) -> None:
    """The middle held-out case of each data set: source, prediction, truth, and how far the trace goes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Of the code that made the table: the folder that was written to last.
    newest = max((out / "data").glob("*/traces"), key=lambda folder: folder.stat().st_mtime, default=out)
    folders = [sorted((newest / kind).glob("*")) for kind in ("flair", "heart", "volume")]
    chosen = [found[len(found) // 2] for found in folders if found]
    if not chosen:
        return
    figure, axes = pyplot.subplots(len(chosen), 5, figsize=(13, 2.8 * len(chosen)), facecolor="black", squeeze=False)
    for number, (line, folder) in enumerate(zip(axes, chosen, strict=True)):
        trace = Trace.load(folder)
        assert trace.target is not None
        moved = trace.image.with_tensor(trace.displacement.magnitude())
        panels = {
            "source": trace.source,
            "prediction": trace.image,
            "true image": trace.target,
            "source, carried": trace.warped_source,
            "displacement [mm]": moved,
        }
        low, high = trace.source.tensor.quantile(0.005), trace.source.tensor.quantile(0.995)
        for axis, (name, volume) in zip(line, panels.items(), strict=True):
            array = _middle(volume)
            moving = name.startswith("displacement")
            limits = {"cmap": "viridis", "vmin": 0} if moving else {"cmap": "gray", "vmin": low, "vmax": high}
            drawn = axis.imshow(array.T[:, ::-1], origin="lower", **limits)
            axis.axis("off")
            if number == 0:
                axis.set_title(name, color="white", fontsize=10)
            if moving:
                figure.colorbar(drawn, ax=axis, fraction=0.04).ax.tick_params(colors="white", labelsize=7)
    figure.tight_layout()
    with replacing(out / "plasticine_real.png") as temporary:
        figure.savefig(temporary, dpi=80, format="png", facecolor="black")
    pyplot.close(figure)


def _middle(volume: Volume) -> np.ndarray:
    array = volume.tensor[0, 0].numpy()
    return array if array.ndim == 2 else array[..., array.shape[2] // 2]


def _registered(pair: Pair) -> Trace:
    """The true image traced by a registration that sees it."""
    source, target = read(pair.path("source")), read(pair.path("target"))
    fields = register_diffeomorphic(target, source, default_similarity("mind"))
    return Trace.build(source, target, *fields, method="register", kind="registered")


def _scans(name: str) -> Path:
    found = Path(os.environ.get("WHENCE_DATA", "../shared/data")) / name
    if not found.is_dir():
        raise InputError(f"expected the scans of {name} in {found}; WHENCE_DATA names the folder above it")
    return found


def _flair(where: Path) -> Path:
    """T1 and FLAIR of each slice as they lie, with the field that says so."""
    rows = []
    for row in read_pairs(reader("open-ms").convert(_scans("open_ms"), where)):
        if row.conditions["target_modality"] != "flair":
            continue
        still = where / "still.nii.gz"
        if not still.is_file():
            write_displacement(Displacement.identity(read(row.path("source")).grid), still)
        brain = row.path("source_brain")
        files = {"source": row.path("source"), "target": row.path("counterpart")}
        files |= {"source_brain": brain, "target_brain": brain, "displacement": still, "inverse": still}
        rows.append({"id": row.id, "split": row.split, **files})
    return write_pairs(where / "as_they_lie.csv", rows)


def _heart(where: Path) -> Path:
    """The slices that show the left ventricle at both times, a window around the heart."""
    folder, rows = _scans("cardiac_cine"), []
    names = {"source": "ED", "target": "ES"}
    images = {side: read(folder / f"patient1_{time}.nii.gz") for side, time in names.items()}
    labels = {side: read_labels(folder / f"patient1_{time}_gt.nii.gz") for side, time in names.items()}
    spacing = tuple(float(s) for s in images["source"].grid.spacing[:2])
    where.mkdir(parents=True, exist_ok=True)
    for index in range(images["source"].grid.shape[2]):
        shown = [labels[side].tensor[0, 0, :, :, index] for side in names]
        if not all(bool((found == 1).any()) for found in shown):
            continue
        middle = (shown[0] > 0).nonzero().double().mean(dim=0)
        starts = [
            int(np.clip(round(float(m)) - WINDOW // 2, 0, n - WINDOW))
            for m, n in zip(middle, shown[0].shape, strict=True)
        ]
        inside = (..., *[slice(start, start + WINDOW) for start in starts])
        files: dict[str, Any] = {}
        grid = Grid.regular((WINDOW, WINDOW), spacing, centred=True)
        for side in names:
            files[side], files[f"{side}_labels"] = (where / f"{side}{end}_{index}.nii.gz" for end in ("", "_labels"))
            write(Volume(images[side].tensor[..., index][inside].contiguous(), grid), files[side])
            write_labels(Volume(labels[side].tensor[..., index][inside].contiguous(), grid), files[f"{side}_labels"])
        rows.append({"id": f"slice{index}", "split": "test" if index == HELD_OUT else "train", **files})
    return write_pairs(where / "pairs.csv", rows)
