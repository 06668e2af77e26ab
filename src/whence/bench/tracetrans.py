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

TITLE = "TraceTrans on the surgery phantom (2D, 128 x 128, 50 held-out cases)"
NOTES = (
    "Mean ± standard deviation over cases; the same data, steps and seed in every row. Published: BraTS-Reg, "
    "256 x 256, other data than ours, so that the order and not the height can be compared."
)
SHOWN = {
    "ssim": "SSIM",
    "psnr": "PSNR [dB]",
    "displacement_error": "displacement error [mm]",
    "displacement_error_near": "within 15 mm of the lesion [mm]",
    "tre_near": "landmarks within 15 mm [mm]",
    "dice": "Dice of carried labels",
    "edges_warp": "edges, prediction and warp",
    "folding": "folded share",
    "inverse_error": "inverse error [voxel]",
}


def rows(quick: bool) -> list[Row]:
    """Rows of the table; the smoke version trains 20 steps on 24 cases of 64 x 64."""
    base = {"method": "tracetrans", "cases": 24, "size": 64, "steps": 20} if quick else {"method": "tracetrans"}
    nmi = {**base, "similarity": "nmi"}
    return [
        Row("do nothing", {**base, "nothing": True}),
        Row("Pix2Pix (trace recovered)", {**base, "method": "pix2pix"}),
        Row("TraceTrans, NMI 16 (as published)", nmi, {"SSIM": 0.7597, "NMI of streams": 0.2249}),
        Row("TraceTrans, NMI 16, gamma 1 (as published)", {**nmi, "gamma": 1.0}),
        Row("TraceTrans, local NCC (the recipe)", base),
        Row("TraceTrans, MIND", {**base, "similarity": "mind"}),
        Row("local NCC, gamma 0", {**base, "gamma": 0.0}),
        Row("local NCC, alpha 0.25", {**base, "alpha": 0.25}),
        Row("local NCC, alpha 0.75", {**base, "alpha": 0.75}),
        Row("local NCC, adversarial 0.01", {**base, "adversarial": 0.01}),
        Row("single stream", {**base, "stream": "single", "gamma": 0.0}, {"NMI of streams": 0.2167}),
    ]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train and evaluate a row; cells as ``mean ± sd``."""
    settings = dict(row.settings)
    method, doing_nothing = settings.pop("method"), settings.pop("nothing", False)
    cases, size = settings.pop("cases", 450), settings.pop("size", 128)
    table = write_phantom("surgery", cases, size, data / f"surgery_{cases}_{size}")
    changes = {**settings, **({"stream": "single", "gamma": 0.0, "alpha": 1.0} if method == "pix2pix" else {})}
    # Doing nothing needs a run only for its grids: one step serves.
    changes = {"steps": 1, "stream": "single", "gamma": 0.0} if doing_nothing else changes
    model, train = read_recipe("tracetrans-cpu", find_method(method), **changes)
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
