"""IMSE's tables on the multimodal phantom."""

from __future__ import annotations

import numpy as np
import torch

from whence.data.pairs import Pair
from whence.field import Displacement
from whence.io import read_labels
from whence.space import Grid


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
