"""Options of retrieval-based post-operative generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whence.models.diffusion import SOLVERS

_RANGES = (
    ("latent", 1, 64),
    ("vae_steps", 0, 10**9),
    ("kl", 0, 1e3),
    ("top", 1, 1000),
    ("guidance", 0, 100),
    ("dropped", 0, 1),
    ("planned", 0, 1),
    ("otherwise", 0, 1),
    ("heeded", 0, 10),
    ("focus", 1, 1000),
    ("noise_steps", 10, 100_000),
    ("noisier", 0.1, 10),
    ("solver_steps", 1, 1000),
    ("image", 0, 1e6),
    ("align", 0, 1e6),
    ("smoothness", 0, 1e6),
    ("squarings", 0, 16),
    ("neighbours", 0, 0.5),
)


@dataclass(frozen=True)
class PostopConfig:
    """Options of retrieval-based post-operative generation.

    Args:
        pretrained: folder or hub's name of Stable Diffusion 2's layout, or a folder of an autoencoder alone (vae/);
            what it does not hold starts from nothing.
        encoder: folder or hub's name of a (Med)SAM whose image encoder reads the composite; or else a small network.
        encoder_scale: intensities as that encoder knows them: medsam, each image's own range as 0 to 1, or sam, the
            means and deviations of photographs.
        features: channels of the U-Net from nothing, from the latents' resolution down, multiples of 8.
        vae_features: channels of the autoencoder from nothing, from the image's resolution down, multiples of 8.
        latent: channels of its latents.
        vae_steps: training steps that the autoencoder is trained alone before; 0 with a pretrained one.
        vae_rate: learning rate of the autoencoder.
        kl: weight of the latents' divergence from a normal distribution.
        segmentation: whether the query's tumour mask is told, to the prompt as p_seg and in the grid.
        composed: whether it holds the composite, p_comp.
        instructed: whether the grid holds the past case; without it its cells are empty.
        strategy: how past cases are found: tumour (overlap), image or random.
        top: of how many of the most similar cases one is drawn at each training step.
        guidance: weight of the prompt when sampling; 1 takes the prompted answer alone.
        dropped: share of training samples that are not prompted.
        planned: share of those that are shown the true resection, so that a plan is heeded where there is one.
        otherwise: share of those in turn that are told to cut a part of the tumour and are shown what might have come
            of it: the true outcome with its cavity stretched over the part, and the scan where nothing is cut then.
        heeded: weight of a plan when sampling: what it changes of the outcome without it; 1 takes the planned outcome.
        focus: how much the loss counts where tumour and cavity are and around, of what it counts elsewhere.
        noise_steps: steps of the noise schedule.
        noise_schedule: noise schedule of diffusers.
        noisier: steps are drawn in training with a chance that grows with this power of the noise less 1; 1 draws all
            alike.
        answer: what the U-Net answers: epsilon (the noise), v_prediction, or change, what the operation does to the
            query's latents.
        solver: ddim, or dpm for DPM-Solver++.
        solver_steps: denoising steps when sampling.
        carrier: channels of the network that carries the scan to its outcome, from the image's resolution down,
            multiples of 8; none leaves the picture to the autoencoder, as published, and the trace to be recovered.
        image: weight of that outcome's distance from the true one.
        align: weight of 1 less the local correlation of the carried scan with the true outcome, beyond the cavity.
        smoothness: weight of the gradient energy of the velocity that carries it.
        squarings: steps of scaling and squaring.
        neighbours: how much of a volume's slice each of its neighbours makes while it is drawn, but for the last steps,
            which are its own; slices begin with the same noise.
        learning_rate: of AdamW.
    """

    pretrained: str = ""
    encoder: str = ""
    encoder_scale: Literal["medsam", "sam"] = "medsam"
    features: tuple[int, ...] = (64, 128, 256)
    vae_features: tuple[int, ...] = (32, 64, 128)
    latent: int = 4
    vae_steps: int = 2000
    vae_rate: float = 1e-3
    kl: float = 1e-6
    segmentation: bool = True
    composed: bool = True
    instructed: bool = True
    strategy: Literal["tumour", "image", "random"] = "tumour"
    top: int = 15
    guidance: float = 2.0
    dropped: float = 0.1
    planned: float = 0.3
    otherwise: float = 0.5
    heeded: float = 1.0
    focus: float = 1.0
    noise_steps: int = 1000
    noise_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "scaled_linear"
    noisier: float = 1.0
    answer: Literal["epsilon", "v_prediction", "change"] = "epsilon"
    solver: Literal["ddim", "dpm"] = "ddim"
    solver_steps: int = 50
    carrier: tuple[int, ...] = ()
    image: float = 2.0
    align: float = 1.0
    smoothness: float = 0.5
    squarings: int = 7
    neighbours: float = 0.2
    learning_rate: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("features", "vae_features", "carrier"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            found = getattr(self, name)
            if name == "carrier" and not found:
                continue
            if len(found) < 2 or any(n < 8 or n % 8 for n in found):
                raise ValueError(f"{name} are two multiples of 8 or more; got {list(found)}")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}; got {getattr(self, name)}")
        if self.solver_steps > self.noise_steps:
            most, got = self.noise_steps, self.solver_steps
            raise ValueError(f"expected at most {most} solver_steps, the noise_steps; got {got}")
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; expected one of {', '.join(SOLVERS)}")
        if self.pretrained:
            object.__setattr__(self, "vae_steps", 0)
