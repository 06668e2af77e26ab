"""How well error maps say where and how far things moved."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from whence.data import PairsTable
from whence.data.pairs import Pair
from whence.field import Displacement, warp
from whence.io import read, read_displacement, read_labels
from whence.metrics import label_overlap
from whence.models.evaluator import spatial_error
from whence.models.predictor import Predictor
from whence.space import Grid

BLOCK = 1 / 6  # of the image's side: the regions in which error and displacement are compared


def error_maps(judge: Predictor, test: PairsTable) -> dict[str, float]:
    """How the estimated error ranks pairs by their overlap, and regions by their displacement."""
    from scipy.stats import spearmanr

    ranks = {"map and displacement": round(ranks_of_regions(judge, test), 3)}
    if not test.has("source_labels"):
        return ranks
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
    return {"error and Dice": round(float(spearmanr(errors, overlaps).statistic), 3), **ranks}


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
