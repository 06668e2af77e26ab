"""A macula as OCT shows it: eight layers around a foveal pit, vessels' shadows, speckle.

Lengths along the beam are drawn tenfold, as B-scans are shown: 1 mm of the file is 0.1 mm of tissue there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import ndimage

from whence.data.phantom.anatomy import reached, to_world
from whence.data.phantom.population import Trait
from whence.data.phantom.shapes import inside
from whence.field import Displacement
from whence.space import Grid

FIELD_OF_VIEW = 6.0  # mm
UP = 1  # the axis against the beam: anterior, the vitreous is on top
# Name, mean thickness in mm as drawn, share of it that the pit takes away at its middle.
LAYERS = (
    ("nerve fibre layer", 0.35, 0.85),
    ("ganglion cell layer", 0.40, 0.85),
    ("inner plexiform layer", 0.38, 0.80),
    ("inner nuclear layer", 0.35, 0.70),
    ("outer plexiform layer", 0.30, 0.40),
    ("outer nuclear layer", 0.75, -0.30),
    ("ellipsoid zone", 0.35, -0.10),
    ("pigment epithelium", 0.30, 0.0),
)
LABEL_NAMES = {number: name for number, (name, _, _) in enumerate(LAYERS, start=1)}
# How the layers lie in two populations; mm as drawn.
TRAITS = {
    "bow": Trait((0.0, 0.25), (0.8, 0.25)),
    "thickness": Trait((-0.12, 0.06), (0.18, 0.06)),
    "height": Trait((0.1, 0.15), (-0.2, 0.15)),
    "tilt": Trait((0.0, 0.05), (0.0, 0.08)),
    "pit": Trait((0.0, 0.05), (0.15, 0.05)),
}


@dataclass(frozen=True)
class Device:
    """Brightness of vitreous, layers and choroid, looks that speckle is a mean of, and the display's exponent."""

    tissues: tuple[float, ...]
    looks: float
    gamma: float
    floor: float


DEVICES = {
    "source": Device((0.03, 0.85, 0.55, 0.68, 0.34, 0.58, 0.20, 0.72, 0.95, 0.50), 14.0, 0.9, 0.02),
    "target": Device((0.14, 0.66, 0.30, 0.48, 0.74, 0.26, 0.52, 1.00, 0.60, 0.22), 8.0, 0.8, 0.04),
}


def grid(size: int, dims: int) -> Grid:
    """Cubic grid of ``size`` voxels a side about the macula's middle, RAS."""
    spacing = FIELD_OF_VIEW / size
    affine = np.diag([spacing] * dims + [1.0])
    affine[:dims, dims] = -spacing * (size - 1) / 2
    return Grid((size,) * dims, affine)


class Retina:
    """One person's macula before the population's traits are given to it."""

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        self.grid = grid
        across = grid.dims - 1
        self.pit = rng.normal(0, 0.3, across)
        self.pit_width = 0.6 * np.exp(rng.normal(0, 0.1))
        self.pit_depth = rng.uniform(0.85, 1.0)
        self.factors = np.exp(rng.normal(0, 0.08, len(LAYERS)))
        self.uneven = [_Waves(rng, across, 0.05) for _ in LAYERS]
        self.top = _Waves(rng, across, 0.06)
        self.vessels = [(rng.uniform(-3, 3), rng.uniform(0.05, 0.1), rng.normal(0, 0.2)) for _ in range(6)]
        self.choroid = _Waves(rng, grid.dims, 0.35, shortest=0.5)

    def velocity(self, traits: dict[str, float]) -> np.ndarray:
        """Stationary velocity (D, *shape), mm, of the pull-back that gives the macula these traits."""
        points = _positions(self.grid)
        up, lateral = points[UP], self._lateral(points)
        away = (lateral**2).sum(axis=0)
        near = np.exp(-0.5 * (up / 1.6) ** 2)
        motion = np.zeros_like(points)
        motion[UP] = traits["bow"] * (away / 9 - 0.33) + traits["tilt"] * lateral[0] + traits["height"]
        motion[UP] += traits["thickness"] * up * near
        offset = lateral - self.pit.reshape(-1, *[1] * self.grid.dims)
        spread = np.exp(-0.5 * (offset**2).sum(axis=0) / (1.5 * self.pit_width) ** 2)
        motion[self._sides()] = traits["pit"] * offset * spread
        return -motion

    def scan(self, field: Displacement, device: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image (*shape) float32 and labels (*shape) uint8 of the macula seen through a map into it."""
        points = to_world(reached(field), self.grid).numpy().astype(np.float64)
        look = DEVICES[device]
        up, lateral = points[UP], self._lateral(points)
        spacing = float(self.grid.spacing[0])
        surfaces = self._surfaces(lateral)
        above = [inside(surface - up, 0.3 * spacing) for surface in surfaces]
        shares = [above[0], *(lower - upper for upper, lower in pairwise(above)), 1 - above[-1]]
        values = np.asarray(look.tissues) * np.exp(0.05 * rng.standard_normal(len(look.tissues)))
        clean = np.tensordot(values, np.stack(shares), axes=1)
        below = np.clip(surfaces[-1] - up, 0, None)
        clean = clean * np.where(below > 0, np.exp(-below / 1.5) * (1 + self.choroid(points)), 1.0)
        clean = clean * self._shadows(lateral, 1 - above[1]) + look.floor
        speckle = rng.gamma(look.looks, 1 / look.looks, clean.shape)
        image = ndimage.gaussian_filter(clean * speckle, 0.4)
        depth = np.stack(surfaces) >= up
        labels = depth.sum(axis=0)
        labels[labels > len(LAYERS)] = 0
        return (255 * np.clip(image, 0, 1.4) ** look.gamma).astype(np.float32), labels.astype(np.uint8)

    def _surfaces(self, lateral: np.ndarray) -> list[np.ndarray]:
        """Heights (*shape) of the nine surfaces above lateral positions, from the vitreous down."""
        offset = lateral - self.pit.reshape(-1, *[1] * (lateral.ndim - 1))
        pit = self.pit_depth * np.exp(-0.5 * (offset**2).sum(axis=0) / self.pit_width**2)
        thick = [
            mean * factor * (1 + wave(lateral)) * (1 - share * pit)
            for (_, mean, share), factor, wave in zip(LAYERS, self.factors, self.uneven, strict=True)
        ]
        # The lower surfaces are smooth and the pit dents the upper ones.
        bottom = -1.55 + self.top(lateral)
        heights = [bottom]
        for layer in reversed(thick):
            heights.append(heights[-1] + layer)
        return heights[::-1]

    def _shadows(self, lateral: np.ndarray, under: np.ndarray) -> np.ndarray:
        """What the large vessels let through (*shape): they cross the B-scans."""
        dark = np.zeros(lateral.shape[1:])
        for place, width, slope in self.vessels:
            along = slope * lateral[1] if len(lateral) > 1 else 0.0
            dark = np.maximum(dark, np.exp(-0.5 * ((lateral[0] - place - along) / width) ** 2))
        return 1 - 0.45 * dark * under

    def _sides(self) -> list[int]:
        return [axis for axis in range(self.grid.dims) if axis != UP]

    def _lateral(self, points: np.ndarray) -> np.ndarray:
        return points[self._sides()]


class _Waves:
    """A smooth random function of positions: a few waves of random direction, standard deviation ``size``."""

    def __init__(self, rng: np.random.Generator, dims: int, size: float, shortest: float = 1.5, count: int = 6) -> None:
        direction = rng.standard_normal((count, dims))
        length = rng.uniform(shortest, 4 * shortest, (count, 1))
        self.frequency = 2 * np.pi * direction / np.linalg.norm(direction, axis=1, keepdims=True) / length
        self.phase = rng.uniform(0, 2 * np.pi, count)
        self.size = size * np.sqrt(2 / count)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        angle = np.tensordot(self.frequency, positions, axes=1)
        return self.size * np.sin(angle + self.phase.reshape(-1, *[1] * (angle.ndim - 1))).sum(axis=0)


def _positions(grid: Grid) -> np.ndarray:
    still = Displacement(torch.zeros(1, grid.dims, *grid.shape), grid)
    return to_world(reached(still), grid).numpy().astype(np.float64)
