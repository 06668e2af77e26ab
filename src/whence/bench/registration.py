"""Registration of brains beside ANTs and convexAdam: overlap of regions, folding, inverse, time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from whence.bench.rows import Row
from whence.errors import InputError
from whence.field import Displacement, folding, resample, warp
from whence.io import read, read_labels, replacing
from whence.registration import preset, register, register_affine
from whence.registration.inverse import total, total_inverse
from whence.registration.pyramid import seen_through
from whence.space import Volume

# Fixed and moving of ten people; the last two are one person scanned twice.
PAIRS = (
    ("1001", "1000"), ("1003", "1002"), ("1007", "1006"), ("1009", "1008"), ("1000", "1010"), ("1006", "1001"),
    ("1003", "1023"), ("1004", "1024"),
)  # fmt: skip
# The settings were chosen on these.
TUNED = PAIRS[:2]
SAME_PERSON = PAIRS[-2:]
TOOLS = (
    "whence fast",
    "whence accurate",
    "ANTs SyN",
    "antsRegistrationSyNQuick[s]",
    "convexAdam after our affine",
    "antsRegistrationSyN[s]",
)
# Ten minutes and more a pair: it is left out of the scans of one person, which no mean is taken over.
SLOW = "antsRegistrationSyN[s]"
MARKERS = "oDs^vP"
# What is averaged over the pairs, with how many digits.
MEASURES = {
    "region Dice": 3, "tissue Dice": 3, "folded [%]": 4, "inverse [mm]": 3, "whither [mm]": 5, "seconds": 1,
}  # fmt: skip
# What a peer is imported as, and how it is installed.
PEERS = {"ants": ("ants", "antspyx"), "convex": ("convexAdam", "convexAdam")}
ANTS_KIND = {"ANTs SyN": "SyN"}

Found = tuple[Displacement, Displacement | None, float]


def title(quick: bool) -> str:
    """Heading of the table."""
    return "Registration of OASIS brains" + (" at 4 mm, one pair" if quick else "")


def notes(quick: bool) -> str:
    """What the columns mean."""
    return (
        "Dice: mean over the labels that both images hold, 138 regions and 3 tissues, carried alike for all: each "
        "voxel gets the label of greatest weight among the eight around its point. "
        "Folded: share of brain voxels with a Jacobian of 0 or less. Inverse: mean distance of p from where the two "
        "written fields, linear between their voxels, send it there and back, over the voxels of the brain; whither: "
        "the same where the point back is sought, as `Trace.whither` does. Seconds are of one registration, affine "
        "included, reading and writing not; our compiled code is loaded before. All tools use all cores, one after "
        f"the other; {SLOW} leaves out the two pairs of one person, and means, with the standard deviation over the "
        "pairs, are over those of two people. Settings were chosen on the pairs "
        f"{' and '.join('-'.join(reversed(pair)) for pair in TUNED)}."
    )


def rows(quick: bool) -> list[Row]:
    """Each tool on each pair."""
    chosen = PAIRS[:1] if quick else PAIRS
    spacing = 4.0 if quick else 0.0
    return [
        Row(f"{moving} to {fixed}, {tool}", {"fixed": fixed, "moving": moving, "tool": tool, "spacing": spacing})
        for fixed, moving in chosen
        for tool in TOOLS
        if tool != SLOW or (fixed, moving) not in SAME_PERSON
    ]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Register a pair by a tool and look at what it carries."""
    tool = row.settings["tool"]
    cells: dict[str, Any] = {"pair": f"{row.settings['moving']} to {row.settings['fixed']}", "tool": tool}
    missing = _missing(tool)
    if missing:
        return {**cells, "region Dice": "", "tissue Dice": "", "note": f"not installed: pip install {missing}"}
    fixed, moving = (_scan(row.settings[side], row.settings["spacing"]) for side in ("fixed", "moving"))
    work.mkdir(parents=True, exist_ok=True)
    forward, backward, seconds = _register(tool)(fixed[0], moving[0], work)
    brain = fixed[0].tensor > 0
    for name, index in (("region Dice", 1), ("tissue Dice", 2)):
        carried = warp(moving[index], forward, mode="label", outside="zeros")
        cells[name] = round(_dice(carried, fixed[index], moving[index]), 4)
    cells["folded [%]"] = round(100 * folding(forward, brain), 4)
    if backward is not None:
        points = forward.grid.to_world(np.argwhere(brain[0, 0].numpy()).astype(np.float64)[::7])
        there = forward(points)
        back = backward(there)
        cells["inverse [mm]"] = _distance(back, points)
        cells["whither [mm]"] = _distance(forward.preimage(there, back), points)
    return {**cells, "seconds": round(seconds, 1)}


def _distance(found: np.ndarray, points: np.ndarray) -> float:
    return round(float(np.linalg.norm(found - points, axis=1).mean()), 5)


def summary(frame: Any) -> Any:
    """Mean and standard deviation of each tool over the pairs of two people."""
    import pandas as pd

    lines = []
    tuned = [f"{moving} to {fixed}" for fixed, moving in TUNED]
    for tool, part in _of_two_people(frame).groupby("tool", sort=False):
        cells: dict[str, Any] = {"tool": tool, "pairs": len(part)}
        for name in [n for n in MEASURES if n in part]:
            values = pd.to_numeric(part[name], errors="coerce").dropna()
            spread = f" ± {values.std():.{MEASURES[name]}f}" if len(values) > 1 else ""
            cells[name] = f"{values.mean():.{MEASURES[name]}f}{spread}" if len(values) else ""
        others = pd.to_numeric(part[~part["pair"].isin(tuned)]["region Dice"])
        cells["region Dice, pairs no setting was chosen on"] = f"{others.mean():.3f}" if len(others) else ""
        lines.append(cells)
    return pd.DataFrame(lines)


def _of_two_people(frame: Any) -> Any:
    frame = frame[~frame["region Dice"].astype(str).isin(["", "nan"])]
    return frame[~frame["pair"].isin([f"{moving} to {fixed}" for fixed, moving in SAME_PERSON])]


def draw(frame: Any, out: Path) -> None:
    """Dice against seconds, each tool's pairs of two people and, larger, their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    frame = _of_two_people(frame)
    if frame.empty:
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.9), sharex=True)
    for axis, name in zip(axes, ("region Dice", "tissue Dice"), strict=True):
        for number, (tool, part) in enumerate(frame.groupby("tool", sort=False)):
            colour = f"C{number}" if tool.startswith("whence") else f"{0.15 + 0.12 * number:.2f}"
            x, y = (part[column].astype(float) for column in ("seconds", name))
            axis.scatter(x, y, s=9, marker=MARKERS[number % len(MARKERS)], color=colour, alpha=0.5)
            axis.scatter([x.mean()], [y.mean()], s=70, marker=MARKERS[number % len(MARKERS)], color=colour, label=tool)
        axis.set(xscale="log", xlabel="seconds", ylabel=name)
        axis.margins(x=0.15, y=0.12)
        axis.grid(alpha=0.25)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    with replacing(out / "registration.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)


def folder() -> Path:
    """Where the scans lie. Raises InputError where they do not."""
    found = Path(os.environ.get("WHENCE_DATA", "../shared/data")) / "oasis_malf"
    if not found.is_dir():
        raise InputError(f"expected the OASIS scans in {found}; WHENCE_DATA names the folder above it")
    return found


def _scan(name: str, spacing: float) -> tuple[Volume, Volume, Volume]:
    """A scan, its regions and its tissues."""
    home = folder()
    scan = read(home / f"{name}_SS.nii.gz")
    regions, tissues = (read_labels(home / f"{name}_{kind}.nii.gz") for kind in ("glm", "tissues"))
    if not spacing:
        return scan, regions, tissues
    grid = scan.grid.resampled(spacing)
    return resample(scan, grid), resample(regions, grid, "label"), resample(tissues, grid, "label")


def _dice(carried: Volume, truth: Volume, source: Volume) -> float:
    """Mean over the labels that the two people have in common."""
    a, b = (volume.tensor.numpy().ravel().astype(np.int64) for volume in (carried, truth))
    size = int(max(a.max(), b.max(), source.tensor.max())) + 1
    counts = [np.bincount(labels, minlength=size) for labels in (a, b, a[a == b])]
    shared = np.intersect1d(np.unique(b), np.unique(source.tensor.numpy()))
    shared = shared[shared > 0]
    return float(np.mean(2 * counts[2][shared] / (counts[0][shared] + counts[1][shared])))


def _missing(tool: str) -> str:
    """The package that a peer lacks."""
    if tool.startswith("whence"):
        return ""
    module, package = PEERS["convex" if tool.startswith("convex") else "ants"]
    return "" if find_spec(module) else package


def _register(tool: str) -> Callable[[Volume, Volume, Path], Found]:
    if tool.startswith("whence"):
        return lambda fixed, moving, work: _ours(fixed, moving, tool.split()[1])
    if tool.startswith("convex"):
        return lambda fixed, moving, work: _convex(fixed, moving)
    return lambda fixed, moving, work: _ants(fixed, moving, ANTS_KIND.get(tool, tool), work)


def _ours(fixed: Volume, moving: Volume, name: str) -> Found:
    settings = preset(name)
    small = fixed.grid.resampled(12.0)
    # What is compiled is loaded before the clock starts.
    register(resample(fixed, small), resample(moving, moving.grid.resampled(12.0)), settings=settings)
    began = time.perf_counter()
    found = register(fixed, moving, settings=settings)
    return found.displacement, found.inverse, time.perf_counter() - began


def _convex(fixed: Volume, moving: Volume) -> Found:
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    began = time.perf_counter()
    matrix = register_affine(fixed, moving)
    aligned = resample(seen_through(matrix, moving), fixed.grid)
    images = (fixed.tensor[0, 0].contiguous(), aligned.tensor[0, 0].contiguous())
    found = convex_adam_pt(*images, dtype=torch.float32)
    seconds = time.perf_counter() - began
    field = Displacement(torch.from_numpy(np.moveaxis(found, -1, 0)[None].astype(np.float32)), fixed.grid)
    # It gives no inverse of its own: its field is inverted as ours is.
    return total(matrix, field), total_inverse(matrix, field, moving.grid), seconds


def _ants(fixed: Volume, moving: Volume, kind: str, work: Path) -> Found:
    import ants

    from whence.io import read_displacement, write

    write(fixed, work / "fixed.nii.gz")
    write(moving, work / "moving.nii.gz")
    images = [ants.image_read(str(work / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    began = time.perf_counter()
    found = ants.registration(*images, kind, outprefix=str(work / "ants_"))
    seconds = time.perf_counter() - began
    fields = []
    for name, (onto, other), files in (("forward", (0, 1), "fwdtransforms"), ("backward", (1, 0), "invtransforms")):
        inverted = [name == "backward" and file.endswith(".mat") for file in found[files]]
        path = ants.apply_transforms(
            images[onto], images[other], found[files], whichtoinvert=inverted, compose=str(work / f"{name}_")
        )
        fields.append(read_displacement(path))
    forward, backward = fields
    return forward.resampled(fixed.grid), backward.resampled(moving.grid), seconds
