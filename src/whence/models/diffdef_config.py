"""Options of Diff-Def."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whence.models.diffusion import SOLVERS

FIELDS = ("velocity", "displacement", "image")
GRADIENTS = ("network", "exact")
_RANGES = (
    ("latent", 1, 64),
    ("vae_steps", 1, 10**9),
    ("registration_steps", 1, 10**9),
    ("kl", 0, 1e3),
    ("blocks", 1, 8),
    ("attention", 0, 8),
    ("width", 8, 8192),
    ("registration_smoothness", 0, 1e6),
    ("vae_patch", 1, 8),
    ("registration_patch", 1, 8),
    ("registration_window", 0, 4096),
    ("maps", 0, 256),
    ("neighbours", 1, 1000),
    ("registered", 0, 1000),
    ("neighbour_width", 1e-3, 100),
    ("dropped", 0, 1),
    ("morphology", 0, 1e6),
    ("bending", 0, 1e6),
    ("anchor", 0, 1e6),
    ("group_rounds", 0, 16),
    ("through", 0, 1000),
    ("smoothing", 0, 100),
    ("squarings", 0, 16),
    ("noise_steps", 10, 100_000),
    ("solver_steps", 1, 1000),
    ("averaged", 1, 1000),
)


@dataclass(frozen=True)
class DiffDefConfig:
    """Options of Diff-Def; the defaults are the published setting where the document names one.

    Args:
        conditions: columns of the table that an atlas is asked for by: numbers, or words.
        pretrained: a finished run of this method whose autoencoder and registration network are taken instead of
            learnt: the first two stages fall away, and all --steps are the third's, which can be tried in several ways.
        vae_features: channels of the autoencoder, from the image's resolution down, multiples of 8.
        vae_patch: voxels a side of the blocks that it sees, and its decoders answer with, as channels.
        latent: channels of its latents.
        vae_steps: training steps of the first stage, the autoencoder's.
        vae_rate: its learning rate.
        kl: weight of the latents' divergence from a normal distribution.
        registration_steps: training steps of the second stage, the registration network's.
        registration_rate: its learning rate.
        registration_smoothness: weight of its velocity's gradient energy.
        down: features of its U-Net from full resolution down.
        up: features on the way back.
        registration_patch: voxels a side of the blocks that it sees as channels: above 1 faster, its field coarser.
        registration_window: voxels a side of the random windows of two images in which it learns: of volumes many more
            steps in the same time; 0 for whole images.
        features: channels of the denoiser, from the latents' resolution down, multiples of 8.
        blocks: residual blocks of the denoiser at each level.
        attention: how many of its deepest levels attend to the conditions.
        width: of the vectors that they attend to.
        told: whether the field's decoder is told the conditions as well, and need not read them from the latents.
        maps: how many learnt maps of features over the frame each level of that decoder has, which conditions weigh,
            if it is told them: what moves with the condition alone need not be seen in the latents.
        field: velocity, whose exponential is a diffeomorphism, or displacement, which may fold; image has no field and
            draws the atlas itself, what the document compares with.
        smoothing: deviation, in voxels, of the Gaussian under which the decoder's answer becomes the field: a velocity
            folds nowhere if it is smooth over voxels.
        squarings: steps of scaling and squaring.
        neighbours: people beside a training sample, among whom the atlas is to be the middle.
        registered: to how many of them the atlas is registered at a step; for the others stands how much farther than
            these they lie from the general atlas, found once each. 0 for all.
        neighbour_width: deviation of the Gaussian by which they are drawn, in deviations of the attributes.
        dropped: share of training samples in which an attribute is taken for unknown.
        morphology: weight of the squared mean displacement to the neighbours.
        gradient: of that term: network passes it through the registration network, as published; exact takes it for one
            that answers what is still to be gone, so that the field learns nothing that only deceives the network.
        anchor: weight of the field's squared distance from the mean of the general atlas's own registrations to the
            neighbours, in two rounds: what decides where the images show no motion. Each person's is found once and
            kept, 2 bytes a voxel and axis.
        group_rounds: further rounds of these registrations, onto the mean of the neighbours' images as the first carry
            them into atlas space: in it the noise is averaged away for which a registration of one person falls short.
            An image is kept of each person, 2 bytes a voxel and channel.
        bending: weight of the field's bending energy, in voxels: of voxels twice as large it weighs 16 times as much
            against the morphology.
        frugal: whether neighbours are registered to one by one, and these and the autoencoder's blocks computed again
            for the gradient: a fraction of the memory, a third more time.
        through: of the last solver steps how many let the gradient of what the field does pass to the denoiser.
        noise_steps: steps of the noise schedule.
        solver: ddim, or dpm for DPM-Solver++.
        solver_steps: denoising steps, when sampling and inside of training.
        averaged: of how many draws the mean is answered: of their fields, before the exponential, or of images.
        learning_rate: of AdamW, for the third stage.
    """

    conditions: tuple[str, ...] = ("age",)
    pretrained: str = ""
    vae_features: tuple[int, ...] = (32, 64, 128, 128)
    vae_patch: int = 1
    latent: int = 3
    vae_steps: int = 20_000
    vae_rate: float = 1e-4
    kl: float = 1e-6
    registration_steps: int = 20_000
    registration_rate: float = 1e-4
    registration_smoothness: float = 1.0
    down: tuple[int, ...] = (16, 32, 32, 32, 32)
    up: tuple[int, ...] = (32, 32, 32, 32, 16, 16)
    registration_patch: int = 1
    registration_window: int = 0
    features: tuple[int, ...] = (256, 512, 768)
    blocks: int = 2
    attention: int = 2
    width: int = 1024
    told: bool = False
    maps: int = 0
    field: Literal["velocity", "displacement", "image"] = "velocity"
    smoothing: float = 1.0
    squarings: int = 7
    neighbours: int = 15
    registered: int = 0
    neighbour_width: float = 0.2
    dropped: float = 0.1
    morphology: float = 1.0
    gradient: Literal["network", "exact"] = "network"
    anchor: float = 0.0
    group_rounds: int = 0
    bending: float = 1.0
    frugal: bool = False
    through: int = 0
    noise_steps: int = 1000
    solver: Literal["ddim", "dpm"] = "ddim"
    solver_steps: int = 20
    averaged: int = 1
    learning_rate: float = 2.5e-5

    def __post_init__(self) -> None:
        for name in ("conditions", "vae_features", "features", "down", "up"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError(f"conditions are names of columns, each once; got {list(self.conditions)}")
        for name in ("features", "vae_features"):
            found = getattr(self, name)
            if len(found) < 2 or any(n < 8 or n % 8 for n in found):
                raise ValueError(f"{name} are two multiples of 8 or more; got {list(found)}")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}; got {getattr(self, name)}")
        words = (("solver", SOLVERS), ("field", FIELDS), ("gradient", GRADIENTS))
        for name, known in words:
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.registered > self.neighbours:
            raise ValueError(f"expected at most {self.neighbours} registered, the neighbours; got {self.registered}")
        if self.group_rounds and not self.anchor:
            raise ValueError(f"group_rounds move the anchor on; got {self.group_rounds} group_rounds, anchor 0")
        if self.maps and not self.told:
            raise ValueError(
                f"maps are weighed by conditions that the decoder is told; got {self.maps} maps, told false"
            )
        if self.solver_steps > self.noise_steps:
            raise ValueError(f"expected at most {self.noise_steps} solver_steps; got {self.solver_steps}")
