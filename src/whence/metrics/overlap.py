"""Overlap of label maps, by MONAI."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch

from whence.space import Volume


def label_overlap(carried: Volume, truth: Volume, labels: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Dice and 95 % Hausdorff distance (mm) of each label of two label maps on one grid.

    A label that either map lacks has Dice 0 and an infinite distance; one that both lack is left out.
    """
    from monai.metrics import HausdorffDistanceMetric, compute_dice

    if carried.grid != truth.grid:
        raise ValueError(f"label maps on one grid are compared; got {carried.grid} and {truth.grid}")
    hausdorff = HausdorffDistanceMetric(include_background=True, percentile=95)
    found = {}
    for label in labels:
        a, b = carried.tensor == label, truth.tensor == label
        if not (bool(a.any()) or bool(b.any())):
            continue
        if not (bool(a.any()) and bool(b.any())):
            found[label] = (0.0, math.inf)
            continue
        dice = float(compute_dice(a.float(), b.float(), include_background=True).mean())
        with warnings.catch_warnings():
            # MONAI announces a change inside its own code.
            warnings.simplefilter("ignore", FutureWarning)
            distance = hausdorff(a.float(), b.float(), spacing=[float(s) for s in truth.grid.spacing])
        found[label] = (dice, float(torch.as_tensor(distance).mean()))
    return found
