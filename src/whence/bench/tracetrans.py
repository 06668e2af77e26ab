"""TraceTrans on the surgery phantom: similarities, ablations, Pix2Pix, beside the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whence.bench.rows import Row
from whence.data.phantom import write_phantom
from whence.models import find_method
from whence.train.evaluate import evaluate
from whence.train.fit import fit
from whence.train.options import read_recipe

SHOWN = {
    "ssim": "SSIM",
    "psnr": "PSNR [dB]",
    "nmi": "NMI",
    "displacement_error": "displacement error [mm]",
    "displacement_error_near": "within 15 mm of the lesion [mm]",
    "tre_near": "landmarks within 15 mm [mm]",
    "dice": "Dice of carried labels",
    "edges_warp": "edges, prediction and warp",
    "folding": "folded share",
    "inverse_error": "inverse error [voxel]",
}


def title(quick: bool) -> str:
    """Heading of the table."""
    size, cases = (64, 3) if quick else (128, 50)
    return f"TraceTrans on the surgery phantom (2D, {size} x {size}, {cases} held-out cases)"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 20 steps on 20 cases. It shows that every row runs; its figures mean nothing."
    return (
        "Mean ± standard deviation over cases; rows differ from the recipe `tracetrans-cpu` in what they name, all "
        "train 500 steps on the same 370 cases with one seed. Published: BraTS-Reg at 256 x 256, where Pix2Pix stands "
        "for the paper's single stream; other data than ours, so that the order and not the height can be compared."
    )


def rows(quick: bool) -> list[Row]:
    """Rows of the table, 500 steps each; the smoke version trains 20 steps on 24 cases of 64 x 64."""
    base = {"method": "tracetrans", "steps": 500}
    if quick:
        base |= {"cases": 24, "size": 64, "steps": 20}
    judges = {"adversarial": 0.01, "discriminator_filters": 16, "discriminator_learning_rate": 2e-4}
    coupled = {**base, "gamma": 0.1}
    return [
        Row("do nothing", {**base, "nothing": True}),
        Row("Pix2Pix, trace recovered", {**base, "method": "pix2pix"}, {"NMI": 0.2167}),
        Row(
            "published weights: NMI, gamma 1 to both, adversarial 0.01, smoothness 1",
            {**base, **judges, "similarity": "nmi", "gamma": 1.0, "cross_to": "both", "smoothness": 1.0},
            {"SSIM": 0.7597, "NMI": 0.2249},
        ),
        Row("local NCC (the recipe)", base),
        Row("NMI", {**base, "similarity": "nmi"}),
        Row("MIND", {**base, "similarity": "mind"}),
        Row("local NCC, gamma 0.1 to the translation", {**coupled, "cross_to": "translation"}),
        Row("local NCC, gamma 0.1 to both", {**coupled, "cross_to": "both"}),
        Row("local NCC, alpha 0.25", {**base, "alpha": 0.25}),
        Row("local NCC, alpha 0.75", {**base, "alpha": 0.75}),
        Row("local NCC, adversarial 0.01", {**base, **judges}),
    ]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train and evaluate a row; cells as ``mean ± sd``."""
    settings = dict(row.settings)
    method, doing_nothing = settings.pop("method"), settings.pop("nothing", False)
    cases, size = settings.pop("cases", 450), settings.pop("size", 128)
    table = write_phantom("surgery", cases, size, data / f"surgery_{cases}_{size}")
    # Doing nothing needs a run only for its grids: one step serves.
    changes = {"steps": 1, "save_every": 1} if doing_nothing else settings
    model, train = read_recipe(f"{method}-cpu", find_method(method), **changes)
    run = fit(method, table, work / "run", model, train)
    summary = evaluate(run, table, work / "results", cases=2)
    side = "nothing" if doing_nothing else "model"
    return {label: _cell(_moments(summary, key, side)) for key, label in SHOWN.items()}


def _moments(summary: list[dict[str, Any]], name: str, side: str) -> dict[str, float] | None:
    return next((entry[side] for entry in summary if entry["name"] == name), None)


def _cell(moments: dict[str, float] | None) -> str:
    if moments is None:
        return ""
    digits = 2 if abs(moments["mean"]) >= 1 else 3
    return f"{moments['mean']:.{digits}f} ± {moments['sd']:.{digits}f}"
