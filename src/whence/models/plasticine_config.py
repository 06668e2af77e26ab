"""Options of Plasticine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whence.data.perturbation import Perturbation
from whence.models.diffusion import SOLVERS
from whence.models.moved import RandomMotion
from whence.models.structure import sees_labels

_RANGES = (
    ("noise_steps", 10, 100_000),
    ("solver_steps", 1, 1000),
    ("squarings", 0, 16),
    ("place", 0, 1e6),
    ("agreement", 0, 1e6),
    ("reading", 0, 1e6),
    ("smoothness", 0, 1e6),
    ("population", 0, 1e6),
    ("given", 0, 1),
    ("aligned", 0, 1),
    ("remapped", 0, 1),
    ("disturbed", 0, 2),
    ("blocks", 1, 8),
    ("attention", 0, 8),
    ("patch", 1, 4),
)


@dataclass(frozen=True)
class PlasticineConfig:
    """Options of Plasticine.

    Args:
        structure: what stands for the source: edges, mind, labels (where every image has labels), several joined by +
            (edges+labels), or module:function for a function of images (B, C, *spatial) in [-1, 1] that returns maps
            (B, K, *spatial).
        features: channels of the denoiser, from full resolution down, multiples of 8.
        blocks: its residual blocks a level.
        attention: how many of its deepest levels have self-attention.
        patch: voxels a side that it sees as channels of one, 1 or 2 or 4: larger is faster.
        spatial_features: channels of the spatial transformation module, from full resolution down.
        scales: voxels a voxel at which it looks, one after the other, at the structure as it is carried so far.
        noise_steps: steps of the noise schedule.
        noise_schedule: noise schedule of diffusers: squaredcos_cap_v2, linear, scaled_linear.
        answer: what the denoiser answers: epsilon (the noise) or v_prediction.
        solver: ddim, or dpm for DPM-Solver++.
        solver_steps: denoising steps when sampling.
        squarings: steps of scaling and squaring.
        place: weight of the field's distance, in voxels, to the true map, or to the module's own answer for the image
            without noise where none is known.
        agreement: weight of the carried structure's difference from the target's.
        reading: weight of the squared difference of the structure that is read off a noisy target from its own.
        smoothness: weight of the velocity's gradient energy.
        population: weight of the adversary that teaches where the target's population has what a source shows; 0 for
            no such part. It looks at labels, which the structure must have.
        transformation: whether there is a spatial transformation module; without it the source's structure stays where
            it is, and the trace is recovered by registration.
        given: share of training samples that start from the structure of the row's source; the others start from that
            of their own target under a random map, which is then known. 1 for tables of pairs, 0 with a population
            part where there are none.
        aligned: share of samples whose denoiser sees the target's own structure, moved and carried back by the true
            map, so that it learns to draw along what it is given.
        remapped: share of own targets whose intensities are remapped before their structure is taken, so that
            structure of other modalities is seen.
        disturbed: noise added before, at most so much of half the range of intensities.
        rotation: largest rotation of the random maps, degrees.
        translation: their largest shift, in coordinates that run from -1 to 1 over the image.
        scaling: their largest change of scale.
        elastic: strength of their fine part, as IMSE's protocol has it.
        coarse: strength of their coarse part, whose Gaussian is three times as wide.
        learning_rate: of Adam.
    """

    structure: str = "edges"
    features: tuple[int, ...] = (64, 128, 256, 256)
    blocks: int = 2
    attention: int = 2
    patch: int = 1
    spatial_features: tuple[int, ...] = (32, 64, 96, 128)
    scales: tuple[int, ...] = (4, 2, 1)
    noise_steps: int = 1000
    noise_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    answer: Literal["epsilon", "v_prediction"] = "v_prediction"
    solver: Literal["ddim", "dpm"] = "ddim"
    solver_steps: int = 50
    squarings: int = 7
    place: float = 0.3
    agreement: float = 3.0
    reading: float = 3.0
    smoothness: float = 0.1
    population: float = 0.0
    transformation: bool = True
    given: float = 0.5
    aligned: float = 0.7
    remapped: float = 0.5
    disturbed: float = 0.3
    rotation: float = 3.0
    translation: float = 0.2
    scaling: float = 0.15
    elastic: float = 120.0
    coarse: float = 3000.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or any(scale not in (1, 2, 4, 8) for scale in self.scales):
            raise ValueError(f"scales are of 1, 2, 4, 8; got {list(self.scales)}")
        for name in ("features", "spatial_features"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            found = getattr(self, name)
            if len(found) < 2 or any(n < 8 or n % 8 for n in found):
                raise ValueError(f"{name} are two multiples of 8 or more; got {list(found)}")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}; got {getattr(self, name)}")
        if self.solver_steps > self.noise_steps:
            raise ValueError(
                f"expected at most {self.noise_steps} solver_steps, the noise_steps; got {self.solver_steps}"
            )
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; expected one of {', '.join(SOLVERS)}")
        if self.population and not sees_labels(self.structure):
            raise ValueError(f"population {self.population:g} needs labels in the structure; got {self.structure!r}")
        if self.population and not self.transformation:
            raise ValueError("population is a part of the spatial transformation module, which is off; expected 0")
        self.motion  # noqa: B018 - refuses what is out of range

    @property
    def motion(self) -> RandomMotion:
        """The random maps that these options describe."""
        affine = (self.rotation, self.translation, self.scaling)
        coarse = Perturbation(0.0, 0.0, 0.0, self.coarse, 36.0)
        return RandomMotion(Perturbation(*affine, self.elastic, 12.0), coarse, self.squarings)
