"""IMSE's tables on the multimodal phantom: registration, translation and error maps, beside the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from whence.bench.rows import Row
from whence.data import PairsTable, read_pairs
from whence.data.frame import Intensity
from whence.data.pairs import Pair
from whence.data.phantom import write_phantom
from whence.field import Displacement, warp
from whence.io import read, read_displacement, read_labels
from whence.losses import gradient_energy
from whence.metrics import image_quality, label_overlap
from whence.models import find_method
from whence.models.evaluator import spatial_error, translate
from whence.models.predictor import Predictor
from whence.space import Grid
from whence.trace import Trace
from whence.train.evaluate import predict_row
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load
from whence.train.score import Truth, nothing, score

DIRECTIONS = (("t1", "t2"), ("t2", "t1"))
# 2D, amortised, mean: Dice, HD95 and mean squared field gradient.
PUBLISHED = {
    "t1 to t2": {
        "start": (0.68, 4.17, None),
        "NCC": (0.75, 2.71, 0.0026),
        "MI": (0.82, 1.70, 0.0102),
        "MIND": (0.83, 1.66, 0.0023),
        "CycleGAN and NCC": (0.85, 1.37, 0.0061),
        "RegGAN": (0.86, 1.25, 0.0091),
        "IMSE (BC)": (0.83, 1.72, 0.0125),
        "IMSE (SR)": (0.89, 1.06, 0.0023),
    },
    "t2 to t1": {
        "start": (0.68, 4.17, None),
        "NCC": (0.74, 2.76, 0.0026),
        "MI": (0.79, 1.58, 0.0103),
        "MIND": (0.81, 2.15, 0.0023),
        "CycleGAN and NCC": (0.86, 1.19, 0.0056),
        "RegGAN": (0.86, 1.20, 0.0071),
        "IMSE (BC)": (0.80, 1.87, 0.0122),
        "IMSE (SR)": (0.89, 0.85, 0.0022),
    },
}
TRANSLATION = {"CycleGAN and NCC": (0.088, 24.1, 0.89), "RegGAN": (0.071, 25.5, 0.90), "IMSE (SR)": (0.029, 91.6, 0.96)}
# Weight of smoothness of a registration network by its similarity, whose scales differ.
SMOOTHNESS = {"ncc": 1.0, "mi": 1.0, "mind": 0.3, "imse": 0.2}
BLOCK = 1 / 6  # of the image's side: the regions in which error and displacement are compared


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"IMSE on the multimodal phantom (2D{', smoke version' if quick else ', 96 x 96, 37 held-out heads'})"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 10 steps on 12 heads. It shows that every row runs; its figures mean nothing."
    return (
        "Dice and HD95 (mm; published: pixels) are means over seven labels; the squared gradient is the "
        "displacement's, in voxels; NMAE, PSNR and SSIM compare the translated source with its true counterpart in the "
        "brain (the evaluators know T1, and so translate into T1 alone). The last "
        "two columns are rank correlations: of the mean error map with Dice, over each head moved by five shares of "
        "its true displacement, and of the map with a local displacement over blocks of a sixth of the side. All "
        "registration networks train by one recipe (`regnet-cpu`) but for their similarity and the weight of "
        f"smoothness that suited it best on the validation heads ({_weights()}); both evaluators are trained on T1 "
        "alone. Published: other data, so that the order and not the height can be compared."
    )


def _weights() -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in SMOOTHNESS.items())


def rows(quick: bool) -> list[Row]:
    """Both directions by each similarity."""
    base: dict[str, Any] = {"cases": 300, "size": 96}
    if quick:
        base = {"cases": 12, "size": 48, "steps": 10}
    kinds: dict[str, dict[str, Any]] = {
        "start": {},
        "NCC": {"similarity": "ncc"},
        "MI": {"similarity": "mi"},
        "MIND": {"similarity": "mind"},
        "CycleGAN and NCC": {"similarity": "ncc", "translator": "cyclegan"},
        "RegGAN": {"method": "reggan"},
        "IMSE (BC)": {"evaluator": "imse", "remap": "bezier"},
        "IMSE (SR)": {"evaluator": "imse", "remap": "shuffle"},
    }
    found = []
    for source, target in DIRECTIONS:
        direction = f"{source} to {target}"
        for name, kind in kinds.items():
            dice, hd95, gradient = PUBLISHED[direction][name]
            published = {"Dice": dice, "HD95": hd95, "squared gradient": "" if gradient is None else gradient}
            if direction == "t2 to t1" and name in TRANSLATION:
                published |= dict(zip(("NMAE", "PSNR", "SSIM"), TRANSLATION[name], strict=True))
            label = f"{source.upper()} to {target.upper()}: {name}"
            found.append(Row(label, {**base, **kind, "source": source, "target": target}, published))
    return found


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train what the row needs and compare on the held-out heads."""
    settings = row.settings
    name = f"{settings['source']}_{settings['target']}"
    where = data / f"{settings['cases']}_{settings['size']}"
    modalities = {"source": settings["source"], "target": settings["target"]}
    table = write_phantom("multimodal", settings["cases"], settings["size"], where / name, **modalities)
    steps = {"steps": settings["steps"]} if "steps" in settings else {}
    judge, translator, changes = None, None, {}
    if "evaluator" in settings:
        # One evaluator, of T1 alone, serves both directions.
        t1 = write_phantom("multimodal", settings["cases"], settings["size"], where / "t1_t2", source="t1", target="t2")
        run = _trained("imse", t1, where / f"imse_{settings['remap']}", remap=settings["remap"], **steps)
        judge, changes["similarity"] = load(run), str(run)
        changes["smoothness"] = SMOOTHNESS["imse"]
        # Its reference must be T1.
        translator = judge if settings["target"] == "t1" else None
    if "translator" in settings:
        run = _trained("cyclegan", table, where / f"cyclegan_{name}", **steps)
        judge = translator = load(run)
        changes["translator"] = str(run)
    if "similarity" in settings:
        changes["similarity"], changes["smoothness"] = settings["similarity"], SMOOTHNESS[settings["similarity"]]
    test = read_pairs(table).split("test")
    if not changes and "method" not in settings:
        return _registration(None, test)
    method = settings.get("method", "regnet")
    model = load(_trained(method, table, work / "run", **changes, **steps))
    if method != "regnet":
        judge = translator = model
    cells = _registration(model, test)
    cells |= {} if translator is None else _translation(translator, test)
    return cells | ({} if judge is None else _error_maps(judge, test))


def local_motion(grid: Grid, row: Pair, seed: int, width: float = 0.125, size: float = 0.042) -> Displacement:
    """Two bumps in the brain of a row's source: Gaussians of ``width``, up to ``size`` of the longest side."""
    rng = np.random.default_rng(seed)
    side = max(grid.shape)
    brain = np.argwhere(read_labels(row.path("source_brain")).numpy() > 0)
    here = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"))
    total = np.zeros(here.shape)
    for _ in range(2):
        middle = brain[rng.integers(len(brain))].reshape(-1, *[1] * grid.dims)
        bump = np.exp(-0.5 * ((here - middle) ** 2).sum(axis=0) / (width * side) ** 2)
        direction = rng.standard_normal(grid.dims)
        direction *= rng.uniform(0.6, 1.0) * size * side / np.linalg.norm(direction)
        total += direction.reshape(-1, *[1] * grid.dims) * bump
    return Displacement(torch.from_numpy(total.astype(np.float32))[None], grid)


def ranks_of_regions(judge: Predictor, test: PairsTable) -> float:
    """Rank correlation of a local displacement with the map of it, over blocks of the brain of all rows.

    The aligned image of the other modality (``counterpart``) is moved; less than a tenth of a voxel counts as none.
    """
    from scipy.stats import spearmanr

    moved, seen = [], []
    for seed, row in enumerate(test):
        fixed, aligned = read(row.path("source")), read(row.path("counterpart"))
        motion = local_motion(fixed.grid, row, seed)
        if "target" in judge.method.columns:
            # A translator sees moving images of the source's modality only.
            fixed, aligned = aligned, fixed
        found = spatial_error(judge, warp(aligned, motion), fixed).map.tensor
        brain = (read_labels(row.path("source_brain")).tensor > 0).float()
        length = motion.tensor.square().sum(dim=1, keepdim=True).sqrt()
        share = _blocks(brain)
        kept = share > 0.5
        far = _blocks(length * brain)[kept] / share[kept]
        moved.append(far * (far > 0.1))
        seen.append(_blocks(found * brain)[kept] / share[kept])
    return float(spearmanr(torch.cat(moved).numpy(), torch.cat(seen).numpy()).statistic)


def _blocks(image: torch.Tensor) -> torch.Tensor:
    """Means of blocks of ``BLOCK`` of the side."""
    side = round(BLOCK * max(image.shape[2:]))
    return (F.avg_pool2d if image.ndim == 4 else F.avg_pool3d)(image, side)


def _registration(model: Predictor | None, test: PairsTable) -> dict[str, Any]:
    """Overlap, smoothness and landmark error of a registration, or of none, as ``mean ± sd``."""
    found = []
    for row in test:
        if model is None:
            image, target = read(row.path("source")), read(row.path("target"))
            still = Displacement.identity(image.grid)
            trace = nothing(Trace.build(image, image, still, still, method="nothing"))
            truth = Truth.of(row, target)
        else:
            trace = predict_row(model, row, test)
            truth = Truth.of(row, trace.image)
        figures = score(trace, truth)
        figures["gradient"] = float(gradient_energy(trace.displacement.tensor))
        found.append(figures)
    shown = {
        "Dice": ("dice", 3),
        "HD95": ("hd95", 2),
        "squared gradient": ("gradient", 4),
        "landmarks [mm]": ("tre", 2),
    }
    return {label: _cell([f[key] for f in found], digits) for label, (key, digits) in shown.items()}


def _translation(translator: Predictor, test: PairsTable) -> dict[str, Any]:
    """The translated source beside its true counterpart, in the brain."""
    found = []
    for row in test:
        shown = translate(translator, read(row.path("source")), read(row.path("target")))
        truth = read(row.path("counterpart"))
        pair = [(Intensity.of(volume).normalise(volume.tensor) + 1) / 2 for volume in (shown, truth)]
        found.append(image_quality(*pair, read_labels(row.path("source_brain")).tensor > 0))
    shown = {"NMAE": ("mae", 3), "PSNR": ("psnr", 1), "SSIM": ("ssim", 3)}
    return {label: _cell([f[key] for f in found], digits) for label, (key, digits) in shown.items()}


def _error_maps(judge: Predictor, test: PairsTable) -> dict[str, Any]:
    """How the estimated error ranks pairs by their overlap, and regions by their displacement."""
    from scipy.stats import spearmanr

    errors, overlaps = [], []
    for row in test:
        source, target = read(row.path("source")), read(row.path("target"))
        labels, truth = read_labels(row.path("source_labels")), read_labels(row.path("target_labels"))
        whole = read_displacement(row.path("displacement"))
        names = sorted(set(truth.tensor.unique().tolist()) - {0})
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            part = Displacement(share * whole.tensor, whole.grid)
            errors.append(spatial_error(judge, warp(source, part), target).mean)
            carried = warp(labels, part, mode="label")
            overlaps.append(np.mean([dice for dice, _ in label_overlap(carried, truth, names).values()]))
    return {
        "error and Dice": round(float(spearmanr(errors, overlaps).statistic), 3),
        "map and displacement": round(ranks_of_regions(judge, test), 3),
    }


def _cell(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def _trained(method: str, table: Path, out: Path, **changes: Any) -> Path:
    model, train = read_recipe(f"{method}-cpu", find_method(method), **changes)
    return fit(method, table, out, model, train)
