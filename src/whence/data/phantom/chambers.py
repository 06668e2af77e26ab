"""A heart in short axis: cavities, a wall with trabeculae and papillary muscles, what lies around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from whence.data.phantom.anatomy import reached, to_world
from whence.data.phantom.motion import pressure_flow
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.population import Trait
from whence.data.phantom.shapes import inside, smooth_maximum
from whence.field import Displacement
from whence.space import Grid

FIELD_OF_VIEW = 180.0  # mm
CAVITY, WALL, RIGHT = 1, 2, 3
LABEL_NAMES = {CAVITY: "left ventricle", WALL: "myocardium", RIGHT: "right ventricle"}
# Peak motion in mm: the wall of the second population is thicker, its left cavity smaller.
TRAITS = {"wall": Trait((0.0, 0.6), (3.2, 0.7)), "cavity": Trait((0.0, 0.8), (-2.0, 0.8))}
# Order of the tissues.
LUNG, SOFT, FAT, BLOOD, MUSCLE, LIVER = range(6)


@dataclass(frozen=True)
class Vendor:
    """Brightness of the tissues, standard deviations of texture, log bias and noise, blur in mm."""

    tissues: tuple[float, ...]
    texture: float
    bias: float
    noise: float
    blur: float


VENDORS = {
    "source": Vendor((0.06, 0.40, 0.95, 0.88, 0.34, 0.48), 0.04, 0.10, 0.025, 0.6),
    "target": Vendor((0.12, 0.26, 0.55, 0.34, 0.70, 0.85), 0.06, 0.12, 0.04, 1.2),
}


def grid(size: int, dims: int) -> Grid:
    """Cubic grid of ``size`` voxels a side about the heart's middle, RAS."""
    spacing = FIELD_OF_VIEW / size
    affine = np.diag([spacing] * dims + [1.0])
    affine[:dims, dims] = -spacing * (size - 1) / 2
    return Grid((size,) * dims, affine)


class Chambers:
    """One person's heart before the population's traits are given to it; the third axis is the long one."""

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        self.grid = grid
        self.middle = rng.normal(0, 4, 2)
        self.radius, self.thick = rng.normal(21, 1.5), rng.normal(9, 0.7)
        self.oval = np.exp(rng.normal(0, 0.04))
        self.turn = rng.normal(np.pi, 0.25)  # where the right ventricle lies
        folds = np.arange(5, 15)
        self.folds = (folds, rng.normal(0, 0.022, len(folds)), rng.uniform(0, 2 * np.pi, len(folds)))
        self.papillary = [(rng.normal(angle, 0.2), rng.uniform(2.4, 3.4)) for angle in (0.8, -0.9)]
        self.right = (rng.normal(19, 1.5), rng.normal(27, 2))
        self.torso = (rng.normal(82, 2), rng.normal(66, 2))
        self.lumps = smooth_noise(rng, grid.shape, 3.0 / float(grid.spacing[0]))[0]

    def velocity(self, traits: dict[str, float]) -> np.ndarray:
        """Stationary velocity (D, *shape), mm, of the pull-back that gives the heart these traits."""
        still = Displacement.identity(self.grid)
        levels = self._levels(to_world(reached(still), self.grid).numpy().astype(np.float64))
        spacing = float(self.grid.spacing[0])
        cavity = inside(levels["cavity"], spacing)
        wall = inside(levels["wall"], spacing) - cavity
        free = np.ones(self.grid.shape)
        motion = traits["wall"] * pressure_flow(np.clip(wall, 0, None), free, 25.0, spacing)
        motion += traits["cavity"] * pressure_flow(cavity, free, 25.0, spacing)
        return -motion

    def scan(self, field: Displacement, vendor: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image (*shape) float32 and labels (*shape) uint8 of the heart seen through a map into it."""
        import torch

        from whence import kernels

        look, spacing = VENDORS[vendor], float(self.grid.spacing[0])
        places = reached(field)
        levels = self._levels(to_world(places, self.grid).numpy().astype(np.float64))
        lumps = kernels.sample(torch.from_numpy(self.lumps)[None, None], places[None], "linear", "border")[0, 0].numpy()
        edge = 0.4 * spacing
        values = np.asarray(look.tissues) * np.exp(0.04 * rng.standard_normal(len(look.tissues)))
        clean = np.full(self.grid.shape, 0.02)
        # From the skin inwards, each over what is there.
        for level, tissue in (
            ("torso", FAT), ("chest", SOFT), ("lungs", LUNG), ("liver", LIVER), ("sac", FAT), ("right wall", MUSCLE),
            ("right", BLOOD), ("wall", MUSCLE), ("cavity", BLOOD), ("papillary", MUSCLE),
        ):  # fmt: skip
            share = inside(levels[level], edge)
            clean = clean * (1 - share) + share * values[tissue]
        clean *= 1 + look.texture * lumps
        clean *= np.exp(look.bias * smooth_noise(rng, clean.shape, 45.0 / spacing)[0])
        clean = ndimage.gaussian_filter(clean, look.blur / spacing)
        real, imaginary = look.noise * rng.standard_normal((2, *clean.shape))
        labels = np.zeros(self.grid.shape, dtype=np.uint8)
        for level, label in (("right", RIGHT), ("wall", WALL), ("cavity", CAVITY)):
            labels[levels[level] <= 0] = label
        return (400 * np.sqrt((clean + real) ** 2 + imaginary**2)).astype(np.float32), labels

    def _levels(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Level sets (*shape), mm, negative inside."""
        height = points[2] if len(points) > 2 else np.zeros_like(points[0])
        taper = np.sqrt(np.clip(1 - ((height - 10) / 75) ** 2, 0.05, 1))
        x, y = points[0] - self.middle[0], (points[1] - self.middle[1]) * self.oval
        away, angle = np.hypot(x, y), np.arctan2(y, x)
        folds = sum(a * np.cos(k * angle + p + 0.06 * k * height / 10) for k, a, p in zip(*self.folds, strict=True))
        cavity = away - taper * self.radius * (1 + folds)
        outer = away - taper * (self.radius + self.thick)

        def ellipse(centre: tuple[float, float], axes: tuple[float, float], lean: float = 0.0) -> np.ndarray:
            dx, dy = points[0] - centre[0], points[1] - centre[1]
            along, over = np.cos(lean) * dx + np.sin(lean) * dy, np.cos(lean) * dy - np.sin(lean) * dx
            return (np.hypot(along / axes[0], over / axes[1]) - 1) * min(axes)

        far = self.radius + 9
        place = (self.middle[0] + far * np.cos(self.turn), self.middle[1] + far * np.sin(self.turn))
        long, short = self.right[0] * taper.mean(), self.right[1] * taper.mean()
        right = ellipse(place, (float(long), float(short)), self.turn)
        papillary = np.full_like(away, 1e3)
        for direction, size in self.papillary:
            at = 0.66 * self.radius * taper
            blob = np.hypot(x - at * np.cos(direction), y - at * np.sin(direction)) - size * taper
            papillary = np.minimum(papillary, blob)
        torso = ellipse((0.0, 0.0), self.torso)
        lungs = np.minimum(ellipse((-58.0, 8.0), (20.0, 40.0)), ellipse((58.0, 10.0), (22.0, 42.0)))
        return {
            "torso": torso,
            "chest": torso + 7,
            "lungs": np.maximum(lungs, torso + 12),
            "liver": np.maximum(ellipse((-34.0, -54.0), (38.0, 20.0)), torso + 10),
            "sac": np.minimum(outer, right) - 5,
            "right wall": smooth_maximum(right - 3, -outer, 1.0),
            "right": smooth_maximum(right, -outer, 1.0),
            "wall": outer,
            "cavity": cavity,
            "papillary": papillary,
        }
