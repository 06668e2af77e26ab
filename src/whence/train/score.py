"""The figures of one case: a trace beside the truth, and doing nothing beside it too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from whence import kernels
from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import Pair
from whence.errors import InputError
from whence.field import Displacement, folding, resample
from whence.io import read_displacement, read_labels, read_points
from whence.metrics import (
    area_under_curve,
    body_mask,
    displacement_error,
    distance_to,
    edge_agreement,
    image_quality,
    inverse_error,
    label_overlap,
    target_registration_error,
)
from whence.space import Grid, Volume
from whence.trace import Trace

NEAR_MM = 15.0


@dataclass(frozen=True)
class Metric:
    """Name, wording, unit and direction of one figure."""

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower"]


METRICS = (
    Metric("ssim", "SSIM in the body", "", "higher"),
    Metric("ms_ssim", "MS-SSIM in the body's bounding box", "", "higher"),
    Metric("psnr", "PSNR in the body", "dB", "higher"),
    Metric("nmi", "NMI in the body", "", "higher"),
    Metric("mae", "MAE in the body", "of range", "lower"),
    Metric("displacement_error", "Displacement error, body", "mm", "lower"),
    Metric("displacement_error_near", f"Displacement error within {NEAR_MM:.0f} mm of the lesion", "mm", "lower"),
    Metric("tre", "Target registration error", "mm", "lower"),
    Metric("tre_near", f"Target registration error within {NEAR_MM:.0f} mm of the lesion", "mm", "lower"),
    Metric("dice", "Dice of carried labels", "", "higher"),
    Metric("hd95", "HD95 of carried labels", "mm", "lower"),
    Metric("edges_target", "Edge agreement of prediction and truth", "", "higher"),
    Metric("edges_warp", "Edge agreement of prediction and warped source", "", "higher"),
    Metric("folding", "Folded voxels", "share", "lower"),
    Metric("inverse_error", "|whither(whence(p)) - p|", "voxel", "lower"),
    Metric("novelty_auc", "Novelty finds the cavity (AUC)", "", "higher"),
)

# Figures of the trace itself: the source has none to compare.
OF_THE_TRACE = ("edges_warp", "folding", "inverse_error", "novelty_auc")


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a pair, on the prediction's grid; None where the table does not say.

    ``lesion`` is the target's mask: figures near the lesion are taken around it. ``cavity`` is the part
    of the target that has no source; it is left out where points are compared.
    """

    target: Volume
    body: torch.Tensor
    lesion: torch.Tensor | None
    cavity: torch.Tensor | None
    displacement: Displacement | None
    points: tuple[np.ndarray, np.ndarray] | None
    labels: tuple[Volume, Volume] | None

    @classmethod
    def of(cls, row: Pair, like: Volume) -> Truth:
        """Read a row's truth and bring it to a grid. Raises InputError for what does not fit."""
        grid = like.grid

        image = read_image(row.path("target"))
        if image.dims != grid.dims:
            raise InputError(f"{row.path('target')} is {image.dims}D; {row.path('source')} is {grid.dims}D")
        if image.tensor.shape[1] != like.tensor.shape[1]:
            raise InputError(
                f"{row.path('target')} has {image.tensor.shape[1]} channels; the prediction has {like.tensor.shape[1]}"
            )
        target = resample(image, grid)

        def labels(column: str) -> Volume | None:
            volume = _labels_of(row, column, image.grid)
            return None if volume is None else resample(volume, grid, mode="label", outside="zeros")

        brain, lesion, cavity = (labels(f"target_{name}") for name in ("brain", "mask", "cavity"))
        body = body_mask(target.tensor) if brain is None else brain.tensor[:, :1] > 0
        if not bool(body.any()):
            raise InputError(f"no body is found in {row.path('target')}; expected an image with foreground")
        displacement = points = pair = None
        if "displacement" in row.files:
            field = read_displacement(row.files["displacement"])
            if field.grid.dims != grid.dims:
                raise InputError(f"{row.files['displacement']} is {field.grid.dims}D; its images are {grid.dims}D")
            displacement = field.resampled(grid)
        if "source_points" in row.files and "target_points" in row.files:
            points = _point_pair(row, grid.dims)
        source_labels, target_labels = _labels_of(row, "source_labels", grid), labels("target_labels")
        if source_labels is not None and target_labels is not None:
            pair = (source_labels, target_labels)
        lesion, cavity = (None if mask is None else mask.tensor[:, :1] > 0 for mask in (lesion, cavity))
        return cls(target, body, lesion, cavity, displacement, points, pair)


def score(trace: Trace, truth: Truth) -> dict[str, float]:
    """Every figure that the truth allows, by the names of ``METRICS``."""
    scale = Intensity.of(trace.source)
    prediction = (scale.normalise(trace.image.tensor) + 1) / 2
    target = (Intensity.of(truth.target).normalise(truth.target.tensor) + 1) / 2
    warped = (scale.normalise(_as_many(trace.warped_source.tensor, trace.image)) + 1) / 2
    found = image_quality(prediction, target, truth.body)
    found["edges_target"] = edge_agreement(prediction, target, truth.body)
    found["edges_warp"] = edge_agreement(prediction, warped, truth.body)
    found["folding"] = folding(trace.displacement)
    found["inverse_error"] = float(inverse_error(trace.displacement, trace.inverse)[truth.body].mean())
    if truth.cavity is not None:
        found["novelty_auc"] = area_under_curve(trace.novelty.tensor[truth.body], truth.cavity[truth.body])
    found.update(_geometry(trace, truth))
    found.update(_overlap(trace, truth))
    return found


def nothing(trace: Trace) -> Trace:
    """The trace of doing nothing: the source itself, unmoved, on the prediction's grid."""
    image = resample(trace.source, trace.image.grid)
    image = image.with_tensor(_as_many(image.tensor, trace.image))
    return Trace(
        trace.source,
        image,
        Displacement.identity(trace.image.grid),
        Displacement.identity(trace.source.grid),
        image,
        image.with_tensor(torch.zeros_like(image.tensor[:, :1])),
        info={"method": "nothing", "kind": "predicted"},
    )


def _as_many(tensor: torch.Tensor, like: Volume) -> torch.Tensor:
    """A source's channels beside a prediction's: the first one for each where their numbers differ."""
    channels = like.tensor.shape[1]
    return tensor if tensor.shape[1] == channels else tensor[:, :1].expand(-1, channels, *[-1] * like.dims)


def _geometry(trace: Trace, truth: Truth) -> dict[str, float]:
    found = {}
    grid = trace.image.grid
    has_source = truth.body if truth.cavity is None else truth.body & ~truth.cavity
    near = None if truth.lesion is None else distance_to(truth.lesion, grid) <= NEAR_MM
    if truth.displacement is not None:
        error = displacement_error(trace.displacement, truth.displacement)
        found["displacement_error"] = float(error[has_source].mean())
        if near is not None and bool((near & has_source).any()):
            found["displacement_error_near"] = float(error[near & has_source].mean())
    if truth.points is not None:
        source_points, target_points = truth.points
        errors = target_registration_error(trace.whence(target_points), source_points)
        found["tre"] = float(errors.mean())
        if near is not None:
            voxels = torch.from_numpy(grid.to_voxel(target_points).T[None]).float()
            close = kernels.sample(near.float(), voxels, "nearest")[0, 0].numpy() > 0
            if close.any():
                found["tre_near"] = float(errors[close].mean())
    return found


def _overlap(trace: Trace, truth: Truth) -> dict[str, float]:
    """Mean Dice and HD95 of the labels that both truths hold.

    A label that the trace loses counts Dice 0 and the diagonal of the image in mm, so that losing one
    is never for the better; a label of the source or the target alone has no partner and is left out.
    """
    if truth.labels is None:
        return {}
    source_labels, target_labels = truth.labels
    carried = trace.carry(source_labels)
    if truth.cavity is not None:
        # What was cut out has no partner: the cavity takes no part, whatever was carried there.
        carried = carried.with_tensor(carried.tensor.masked_fill(truth.cavity, 0))
        target_labels = target_labels.with_tensor(target_labels.tensor.masked_fill(truth.cavity, 0))
    shared = set(source_labels.tensor.unique().tolist()) & set(target_labels.tensor.unique().tolist())
    pairs = label_overlap(carried, target_labels, sorted(shared - {0}))
    if not pairs:
        return {}
    grid = target_labels.grid
    diagonal = float(np.linalg.norm(grid.spacing * grid.shape))
    return {
        "dice": float(np.mean([dice for dice, _ in pairs.values()])),
        "hd95": float(np.mean([min(distance, diagonal) for _, distance in pairs.values()])),
    }


def _labels_of(row: Pair, column: str, grid: Grid) -> Volume | None:
    """A mask or label map of a row, which must lie on its image's grid; None where there is none."""
    if column not in row.files:
        return None
    volume = read_labels(row.files[column])
    if volume.dims != grid.dims or not volume.grid.same_as(grid, tolerance=0.05):
        image = row.path(column.split("_")[0])
        raise InputError(
            f"{row.files[column]} lies on another grid ({_place(volume.grid)}) than its image {image} "
            f"({_place(grid)}); expected the same"
        )
    return volume


def _place(grid: Grid) -> str:
    return f"{grid!r} from {np.round(grid.to_world(np.zeros(grid.dims)), 2).tolist()}"


def _point_pair(row: Pair, dims: int) -> tuple[np.ndarray, np.ndarray]:
    source, target = (read_points(row.files[f"{side}_points"]).coordinates for side in ("source", "target"))
    for side, points in (("source", source), ("target", target)):
        if points.shape[1] != dims:
            raise InputError(f"{row.files[f'{side}_points']} holds {points.shape[1]}D points; expected {dims}D ones")
    if source.shape != target.shape:
        raise InputError(
            f"{row.files['source_points']} holds {len(source)} points and {row.files['target_points']} {len(target)}; "
            "expected the same landmarks in the same order"
        )
    return source, target


def summarise(rows: list[dict[str, Any]], absent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, standard deviation and count of each figure over cases, for the model and for doing nothing."""
    found = []
    for metric in METRICS:
        model = _moments([row.get(metric.name, math.nan) for row in rows])
        if model is None:
            continue
        beside = None if metric.name in OF_THE_TRACE else _moments([r.get(metric.name, math.nan) for r in absent])
        found.append(
            {
                "name": metric.name,
                "label": metric.label,
                "unit": metric.unit,
                "better": metric.better,
                "model": model,
                "nothing": beside,
            }
        )
    return found


def _moments(values: list[float]) -> dict[str, float] | None:
    kept = np.asarray([v for v in values if math.isfinite(v)])
    if not kept.size:
        return None
    return {"mean": float(kept.mean()), "sd": float(kept.std()), "n": int(kept.size)}
