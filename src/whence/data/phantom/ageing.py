"""A brain without its skull, whose ventricles widen and whose cortex recedes from one population to the other."""

from __future__ import annotations

import numpy as np
import torch

from whence import kernels
from whence.data.phantom.anatomy import anatomy, head_grid, reached
from whence.data.phantom.head import distance_map, tissue_shares
from whence.data.phantom.modalities import AIR, CSF, DEEP, GREY, MODALITIES, SCALP, SKULL, VENTRICLES, WHITE, image_of
from whence.data.phantom.motion import pressure_flow
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.population import Trait
from whence.data.phantom.subject import draw_subject
from whence.field import Displacement
from whence.space import Grid

FIELD_OF_VIEW = 200.0  # mm: the widest brain, moved
LEVELS = (2, 24)  # axial levels (mm) that show ventricles and deep grey matter
LABEL_NAMES = {VENTRICLES: "ventricles", GREY: "cortical grey matter", WHITE: "white matter", DEEP: "deep grey matter"}
# Peak motion of the ventricles' walls and of the cortex, mm.
TRAITS = {"ventricles": Trait((-0.5, 0.7), (4.5, 1.0)), "cortex": Trait((0.0, 0.3), (1.2, 0.4))}


def grid(size: int, dims: int) -> Grid:
    """Cubic grid of ``size`` voxels a side about the brain's middle, RAS."""
    return head_grid(size, dims, FIELD_OF_VIEW)


class Ageing:
    """One person's brain before the population's traits are given to it."""

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        self.grid, self.spacing = grid, float(grid.spacing[0])
        self.level = int(rng.integers(LEVELS[0], LEVELS[1] + 1))
        self.subject = draw_subject(rng, anatomy(grid.dims, self.spacing, self.level), grid)
        self.hull = distance_map(grid.dims, self.level)
        fine = smooth_noise(rng, grid.shape, max(0.8, 2.5 / self.spacing))
        coarse = smooth_noise(rng, grid.shape, 28.0 / self.spacing)
        self.carried = torch.from_numpy(np.concatenate([fine, coarse]).astype(np.float32))[None]

    def velocity(self, traits: dict[str, float]) -> np.ndarray:
        """Stationary velocity (D, *shape), mm, of the pull-back that gives the brain these traits."""
        shares, _ = self._seen(Displacement.identity(self.grid))
        brain = 1 - shares[[AIR, CSF, SKULL, SCALP]].sum(axis=0)
        # The skull stays where it is.
        compliance = np.clip(self.subject.depth / 14, 0, 1) ** 0.7
        motion = traits["ventricles"] * pressure_flow(shares[VENTRICLES], compliance, 30.0, self.spacing)
        motion -= traits["cortex"] * pressure_flow(
            np.clip(brain, 0, 1), np.clip(self.subject.depth / 4, 0, 1), 60.0, self.spacing
        )
        return -motion

    def scan(self, field: Displacement, modality: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image (*shape) float32 and labels (*shape) uint8 of the brain seen through a map into it."""
        shares, grain = self._seen(field)
        labels = shares.argmax(axis=0).astype(np.uint8)
        labels[~np.isin(labels, list(LABEL_NAMES))] = 0
        # Stripped of its skull.
        shares[[SKULL, SCALP]] = 0
        return image_of(MODALITIES[modality], rng, shares, np.zeros(self.grid.shape), grain, self.spacing), labels

    def _seen(self, field: Displacement) -> tuple[np.ndarray, np.ndarray]:
        """Tissue shares (8, *shape) and texture (*shape) through a map into the brain."""
        places = reached(field)[None]
        points = kernels.sample(self.subject.template_points[None], places, "linear", "border")[0]
        grain, uneven = kernels.sample(self.carried, places, "linear", "border")[0].numpy()
        maps, depth = self.subject.template.sample(points).numpy(), self.hull.sample(points).numpy()[0]
        level = self.level if self.grid.dims == 2 else None
        shares, _ = tissue_shares(maps, depth, points.numpy(), uneven, self.spacing, level)
        return shares, grain
