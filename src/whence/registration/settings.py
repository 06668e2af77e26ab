"""How a registration goes: frozen settings and their presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRANSFORMS = ("greedy", "svf")


def _check_levels(name: str, levels: tuple[float, ...], iterations: tuple[int, ...]) -> None:
    if not levels or len(levels) != len(iterations):
        raise ValueError(f"{name} and iterations go together; got {len(levels)} and {len(iterations)} of them")
    if min(levels) <= 0 or min(iterations) < 0 or list(levels) != sorted(levels, reverse=True):
        raise ValueError(f"{name} fall and are above 0, iterations are 0 or more; got {levels} and {iterations}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0; got {value}")


@dataclass(frozen=True)
class AffineSettings:
    """Settings of the affine stage.

    Args:
        spacings: spacing of each level in mm, coarse to fine, scaled down for a field of view below 160 mm; none is
            finer than the fixed image.
        iterations: steps of each level.
        step: first step of a level in voxels of it, as seen at the edge of the image.
        search: how many starts are tried in earnest, of those that a coarse look finds best; 1 trusts the best.
    """

    spacings: tuple[float, ...] = (8.0, 4.0, 3.0)
    iterations: tuple[int, ...] = (60, 60, 30)
    step: float = 0.5
    search: int = 3

    def __post_init__(self) -> None:
        _check_levels("spacings", self.spacings, self.iterations)
        _check_positive(step=self.step, search=self.search)


@dataclass(frozen=True)
class DiffeomorphicSettings:
    """Settings of the diffeomorphic stage.

    Args:
        transform: "greedy" composes small steps; "svf" integrates one stationary velocity.
        levels: factor by which each level is coarser than the fixed image's finest axis, coarse to fine.
        iterations: steps of each level at most.
        step: length of a step in voxels of the level, of a force far above the floor.
        floor: the force, in root mean squares of a level's first one, that is strong enough for half a step.
        smooth_step: Gaussian width in voxels by which forces are smoothed.
        smooth_total: Gaussian width in voxels by which the field itself is smoothed after each step; what suits the
            images and the similarity if not given (``smoothing``).
        patience: iterations over which an energy that no longer falls ends a level.
        tolerance: share of a level's fall that counts as none, over ``patience`` iterations.
    """

    transform: Literal["greedy", "svf"] = "greedy"
    levels: tuple[float, ...] = (8.0, 4.0, 2.0, 1.0)
    iterations: tuple[int, ...] = (60, 60, 60, 20)
    step: float = 1.0
    floor: float = 4.0
    smooth_step: float = 1.0
    smooth_total: float | None = None
    patience: int = 10
    tolerance: float = 0.002

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise ValueError(f"unknown transform {self.transform!r}; expected one of {', '.join(TRANSFORMS)}")
        _check_levels("levels", self.levels, self.iterations)
        _check_positive(step=self.step, patience=self.patience)
        for name in ("floor", "smooth_step", "smooth_total", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is 0 or more; got {value}")

    def smoothing(self, dims: int, across: bool) -> float:
        """The field's Gaussian width in voxels for images of ``dims``, ``across`` modalities or not.

        What a slice shows pulls less surely than a volume, whose neighbouring slices have their say, and measures
        across modalities less surely than local correlation: their fields need a stiffer hand.
        """
        if self.smooth_total is not None:
            return self.smooth_total
        return 2.0 if dims < 3 else 1.0 if across else 0.7


@dataclass(frozen=True)
class Settings:
    """Settings of both stages; ``affine`` is None where the images are aligned already."""

    affine: AffineSettings | None = AffineSettings()
    diffeomorphic: DiffeomorphicSettings | None = DiffeomorphicSettings()


PRESETS = {
    "fast": Settings(),
    "accurate": Settings(
        diffeomorphic=DiffeomorphicSettings(iterations=(100, 100, 100, 100), step=0.5, floor=1.0, tolerance=0.0005)
    ),
}


def preset(name: str) -> Settings:
    """Settings by name. Raises ValueError for an unknown one."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
