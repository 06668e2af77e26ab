"""The brain from 18 to 90 on the template's anatomy: laws of age, flows that tissue follows, how it looks.

Tissue moves along three stationary flows of largest length 1: away from the ventricles, away from the fluid outside,
into the cortex. A person's velocity is their sum, each by its trait in mm, and a variation of one's own, which is 0 in
the mean; that of a population's mean shape has the traits' mean and no variation: the log-Euclidean mean of the shapes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from whence import kernels
from whence.data.phantom import modalities as tissue
from whence.data.phantom.anatomy import BRAIN, CENTRE, Anatomy, anatomy, reached, to_world
from whence.data.phantom.head import distance_map, tissue_shares
from whence.data.phantom.motion import pressure_flow
from whence.field import Displacement, exp
from whence.space import Grid

FIELD_OF_VIEW = (160.0, 200.0, 160.0)  # mm: the brain with its stem's upper end
LEVEL = 12  # axial level (mm) of slices: ventricles and deep grey matter
AGES = (18.0, 90.0)
SPREAD = 0.8  # mm: deviation of the ventricles' trait from what the age gives
CSF, VENTRICLES, GREY, WHITE = range(1, 5)
LABEL_NAMES = {CSF: "CSF", VENTRICLES: "ventricles", GREY: "grey matter", WHITE: "white matter"}
# Label of each tissue, in the order of the shares.
LABELS = np.array([0, VENTRICLES, GREY, WHITE, GREY, CSF, 0, 0], dtype=np.uint8)


def traits_of(age: float, rank: float = 0.0) -> dict[str, float]:
    """What an age in years does to the brain, mm; ``rank`` counts deviations of the ventricles from the age's mean.

    Relative to the template, whose people were some 30 years old.
    """
    passed = (age - AGES[0]) / (AGES[1] - AGES[0])
    return {
        "ventricles": -0.5 + 6.0 * passed**1.7 + SPREAD * rank,
        "sulci": -0.3 + 3.0 * passed**1.4,
        "cortex": -0.15 + 1.2 * passed,
    }


def brain_grid(size: int, dims: int) -> Grid:
    """Grid of ``size`` x 5/4 ``size`` (x ``size``) voxels about the brain's middle, RAS."""
    shape = (size, round(1.25 * size), size)[:dims]
    spacing = FIELD_OF_VIEW[0] / size
    affine = np.diag([spacing] * dims + [1.0])
    affine[:dims, dims] = np.asarray(CENTRE[:dims]) - spacing * (np.asarray(shape) - 1) / 2
    return Grid(shape, affine)


class Lifespan:
    """The general anatomy on a grid, and what traits make of it."""

    def __init__(self, grid: Grid) -> None:
        self.grid, self.spacing = grid, float(grid.spacing[0])
        self.template: Anatomy = anatomy(grid.dims, self.spacing, LEVEL)
        self.hull: Anatomy = distance_map(grid.dims, LEVEL)
        self.points = to_world(kernels.identity(grid.shape)[0], grid)
        shares = self.shares(Displacement.identity(grid))
        brain = self.template.sample(self.points).numpy()[BRAIN] > 0.5
        depth = ndimage.distance_transform_edt(brain) * self.spacing
        grey = shares[tissue.GREY] + shares[tissue.DEEP]
        # Where the skull was nothing moves.
        free, skin = np.clip(depth / 14, 0, 1) ** 0.7, np.clip(depth / 5, 0, 1)
        self.flows = {
            "ventricles": pressure_flow(shares[tissue.VENTRICLES], free, 30.0, self.spacing),
            "sulci": pressure_flow(shares[tissue.CSF], skin, 15.0, self.spacing),
            "cortex": -pressure_flow(grey, skin, 8.0, self.spacing),
        }

    def velocity(self, traits: dict[str, float]) -> np.ndarray:
        """Stationary velocity (D, *shape), mm, of the pull-back into the general anatomy."""
        return -sum(traits[name] * flow for name, flow in self.flows.items())

    def maps(self, velocity: np.ndarray) -> tuple[Displacement, Displacement]:
        """A velocity's pull-back into the general anatomy, and its inverse."""
        voxels = torch.from_numpy((velocity / self.spacing).astype(np.float32))[None]
        return exp(Displacement(voxels, self.grid))

    def shares(self, field: Displacement) -> np.ndarray:
        """Tissue shares (8, *shape) of the brain seen through a pull-back, its skull taken off."""
        points = kernels.sample(self.points[None], reached(field)[None], "linear", "border")[0]
        maps, depth = self.template.sample(points).numpy(), self.hull.sample(points).numpy()[0]
        level = LEVEL if self.grid.dims == 2 else None
        shares, _ = tissue_shares(maps, depth, points.numpy(), np.zeros(depth.shape), self.spacing, level)
        shares[[tissue.SKULL, tissue.SCALP]] = 0
        return shares

    def labels(self, shares: np.ndarray) -> np.ndarray:
        """Labels (*shape), uint8, of tissue shares; 0 where less than half is brain."""
        return np.where(shares[1:].sum(axis=0) >= 0.5, LABELS[1:][shares[1:].argmax(axis=0)], 0).astype(np.uint8)

    def volume(self, shares: np.ndarray) -> float:
        """Volume of the ventricles in ml; of a slice, as if it were 10 mm thick."""
        voxel = self.spacing**self.grid.dims * (10.0 if self.grid.dims == 2 else 1.0)
        return float(shares[tissue.VENTRICLES].sum()) * voxel / 1000


@lru_cache(maxsize=2)
def lifespan(size: int, dims: int) -> Lifespan:
    """The general anatomy on the grid of a size."""
    return Lifespan(brain_grid(size, dims))
