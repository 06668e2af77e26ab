"""A trace followed from a source's labels to what is seen in the prediction, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from whence.bench.segmenter import Segmenter
from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import Pair
from whence.field import folding, warp
from whence.io import read_displacement, read_labels
from whence.metrics import displacement_error, image_quality, inverse_error, label_overlap
from whence.trace import Trace

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
}


def followed(trace: Trace, row: Pair, judge: Segmenter, labels: Sequence[int]) -> dict[str, float]:
    """The figures of ``SHOWN`` of one person's trace; the row names true labels, the partner and the field to it."""
    truth, seen = read_labels(row.path("source_labels")), judge.segment(trace.image)
    partner, field = read_labels(row.path("target_labels")), read_displacement(row.path("displacement"))
    there = label_overlap(trace.carry(truth), seen, labels)
    back = label_overlap(warp(seen, trace.inverse, mode="label"), truth, labels)
    # A label that nothing shows is as far away as the image is wide.
    diagonal = float(np.linalg.norm(truth.grid.spacing * truth.grid.shape))
    # Both on their own scale, over the whole image: most of an OCT scan is no body.
    pair = [
        (Intensity.of(image).normalise(image.tensor) + 1) / 2 for image in (trace.image, read_image(row.path("target")))
    ]
    return {
        **image_quality(*pair, torch.ones_like(pair[0], dtype=torch.bool)),
        "trace_dice": mean_dice(there),
        "trace_hd95": float(np.mean([min(distance, diagonal) for _, distance in there.values()])),
        "downstream": mean_dice(back),
        "partner_dice": mean_dice(label_overlap(seen, partner, labels)),
        "field_error": float(displacement_error(trace.displacement, field)[partner.tensor > 0].mean()),
        "folding": folding(trace.displacement),
        "inverse": float(inverse_error(trace.displacement, trace.inverse).mean()),
    }


def mean_dice(overlap: dict[int, tuple[float, float]]) -> float:
    """Mean Dice of the labels of ``label_overlap``."""
    return float(np.mean([dice for dice, _ in overlap.values()]))
