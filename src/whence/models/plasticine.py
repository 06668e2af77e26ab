"""Plasticine: a diffusion translator that carries its own diffeomorphic trace.

Paper: Plasticine: A Traceable Diffusion Model for Medical Image Translation (summary and abstract). What it states:
intensity translation and spatial transformation inside one denoising diffusion model, precomputed structure maps, a
diffeomorphic, topology-preserving correspondence. The equations are ours.

    z_t   = sqrt(a_t) y + sqrt(1 - a_t) e                          a target y under the noise of step t
    phi_t = exp(T(S, z_t, t))                                      where the target's points come from in the source
    L     = |D(z_t, S o phi_t, t) - e|^2  + w_p |phi_t - phi|_1    phi: the true map, where it is known
            + w_s |S o phi_t - S(y)|_1  + w_r |grad v_t|^2

S is the structure map of the source. Sampling runs t from noise to image; the last phi is the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from whence import kernels
from whence.data.perturbation import Perturbation
from whence.losses import gradient_energy
from whence.models.diffusion import SOLVERS, scheduler, wanted
from whence.models.method import Method, Prediction
from whence.models.remap import shuffle_remap
from whence.models.structure import STRUCTURES
from whence.nets import VelocityHead, diffusion_unet

_RANGES = (
    ("noise_steps", 10, 100_000),
    ("solver_steps", 1, 1000),
    ("squarings", 0, 16),
    ("place", 0, 1e6),
    ("agreement", 0, 1e6),
    ("smoothness", 0, 1e6),
    ("remapped", 0, 1),
    ("blocks", 1, 8),
    ("attention", 0, 8),
)


@dataclass(frozen=True)
class PlasticineConfig:
    """Options of Plasticine.

    Args:
        structure: what stands for the source: edges, mind, or both (edges+mind).
        features: channels of the denoiser, from full resolution down, multiples of 8.
        spatial_features: channels of the spatial transformation module, as many levels or others.
        blocks: residual blocks a level.
        attention: how many of the deepest levels have self-attention.
        noise_steps: steps of the noise schedule.
        noise_schedule: noise schedule of diffusers: squaredcos_cap_v2, linear, scaled_linear.
        answer: what the denoiser answers: epsilon (the noise) or v_prediction.
        solver: ddim, or dpm for DPM-Solver++.
        solver_steps: denoising steps when sampling.
        squarings: steps of scaling and squaring.
        place: weight of the distance to the true map where it is known.
        agreement: weight of the carried structure's difference from the target's.
        smoothness: weight of the velocity's gradient energy.
        sources: whose structure a training sample starts from: that of its own target under a random map (own), which
            is then known, or that of the row's source (given), for tables of pairs.
        remapped: share of own sources whose intensities are remapped first, so that structure of other modalities is
            seen.
        rotation: largest rotation of the random maps, degrees.
        translation: their largest shift, in coordinates that run from -1 to 1 over the image.
        scaling: their largest change of scale.
        elastic: strength of their fine part, as IMSE's protocol has it.
        coarse: strength of their coarse part, whose Gaussian is three times as wide.
        learning_rate: of Adam.
    """

    structure: Literal["edges", "mind", "edges+mind"] = "edges+mind"
    features: tuple[int, ...] = (64, 128, 256, 256)
    spatial_features: tuple[int, ...] = (32, 64, 128, 128)
    blocks: int = 2
    attention: int = 2
    noise_steps: int = 1000
    noise_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    answer: Literal["epsilon", "v_prediction"] = "epsilon"
    solver: Literal["ddim", "dpm"] = "ddim"
    solver_steps: int = 50
    squarings: int = 7
    place: float = 0.1
    agreement: float = 1.0
    smoothness: float = 0.1
    sources: Literal["own", "given"] = "own"
    remapped: float = 0.5
    rotation: float = 3.0
    translation: float = 0.05
    scaling: float = 0.08
    elastic: float = 120.0
    coarse: float = 360.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("features", "spatial_features"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            found = getattr(self, name)
            if len(found) < 2 or any(n < 8 or n % 8 for n in found):
                raise ValueError(f"{name} are two multiples of 8 or more; got {list(found)}")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}; got {getattr(self, name)}")
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; expected one of {', '.join(SOLVERS)}")
        self.motions  # noqa: B018 - refuses what is out of range

    @property
    def motions(self) -> tuple[Perturbation, Perturbation]:
        """The random maps that these options describe, fine and coarse."""
        affine = (self.rotation, self.translation, self.scaling)
        return Perturbation(*affine, self.elastic, 12.0), Perturbation(0.0, 0.0, 0.0, self.coarse, 36.0)


class Plasticine(Method):
    """Intensity translator and spatial transformation module in one denoising diffusion model."""

    name: ClassVar[str] = "plasticine"
    config_class: ClassVar[type] = PlasticineConfig
    optional: ClassVar[tuple[str, ...]] = ()
    unpaired: ClassVar[bool] = True

    def __init__(self, config: PlasticineConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        self.config, self.dims, self.channels = config, dims, target_channels
        self.structure, channels = STRUCTURES[config.structure]
        sizes = (config.blocks, config.attention)
        inputs = channels + target_channels
        self.denoiser = diffusion_unet(dims, inputs, target_channels, config.features, *sizes)
        width = config.spatial_features[0]
        self.spatial = diffusion_unet(dims, inputs, width, config.spatial_features, *sizes)
        self.head = VelocityHead(dims, width)
        # MONAI begins with an answer of zero, from which nothing would reach the module.
        nn.init.normal_(self.spatial.out[-1].conv.weight, std=0.02)
        self.multiple = 2 ** (max(len(config.features), len(config.spatial_features)) - 1)
        self.noise = scheduler("ddim", config.noise_steps, config.noise_schedule, config.answer)

    def derive(self, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Structure maps (1, K, *spatial) of a sample's images, computed once and kept with it."""
        return {f"{name}_structure": self.structure(image) for name, image in sample.items()}

    def velocity(self, structure: torch.Tensor, noisy: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Velocity (B, D, *spatial) in voxels whose exponential says where the target's points come from."""
        features = self.spatial(torch.cat([structure, noisy], dim=1), step)
        return self.head(features, noisy.shape[2:])

    def step(
        self, structure: torch.Tensor, noisy: torch.Tensor, step: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The denoiser's answer, the velocity, and the structure carried by its exponential."""
        velocity = self.velocity(structure, noisy, step)
        carried = kernels.warp(structure, kernels.exp(velocity, self.config.squarings))
        return self.denoiser(torch.cat([carried, noisy], dim=1), step), velocity, carried

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        c = self.config
        structure = self.structure(batch["source"])
        shape = (len(structure), self.channels, *structure.shape[2:])
        image = torch.randn(shape, generator=generator).to(structure)
        solver = scheduler(c.solver, c.noise_steps, c.noise_schedule, c.answer)
        solver.set_timesteps(c.solver_steps)
        for time in solver.timesteps:
            answer, _, _ = self.step(structure, image, time.expand(len(image)).to(image.device))
            image = solver.step(answer, time, image).prev_sample
        image = image.clamp(-1, 1)
        # The last field is that of the image itself, under no noise.
        velocity = self.velocity(structure, image, torch.zeros(len(image), dtype=torch.long, device=image.device))
        return Prediction(image, kernels.exp(velocity, c.squarings), kernels.exp(-velocity, c.squarings))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.parameters(), lr=self.config.learning_rate)]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        terms = self._terms(batch, generator)
        loss = self._total(terms)
        optimizers[0].zero_grad()
        backward(loss)
        optimizers[0].step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._terms(batch, generator)

    def _terms(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        target, goal = batch["target"], batch["target_structure"]
        structure, true = self._source(batch, generator)
        count = len(target)
        step = torch.randint(0, self.config.noise_steps, (count,), generator=generator).to(target.device)
        noise = torch.randn(target.shape, generator=generator).to(target)
        noisy = self.noise.add_noise(target, noise, step)
        answer, velocity, carried = self.step(structure, noisy, step)
        terms = {
            "noise": (answer - wanted(self.noise, target, noise, step)).square().mean(),
            "agreement": (carried - goal).abs().mean(),
            "smooth": gradient_energy(velocity),
        }
        if true is not None:
            terms["place"] = (kernels.exp(velocity, self.config.squarings) - true).abs().mean()
        return terms

    def _source(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A source's structure (B, K, *spatial), and the true map to it (B, D, *spatial) where it is known."""
        if self.config.sources == "given":
            return batch["source_structure"], None
        target = batch["target"]
        velocity = self._motion(len(target), tuple(target.shape[2:]), generator).to(target)
        away, back = (kernels.exp(sign * velocity, self.config.squarings) for sign in (1, -1))
        plain = kernels.warp(batch["target_structure"], away)
        if self.config.remapped == 0:
            return plain, back
        other = self.structure(kernels.warp(shuffle_remap(target, generator, (2, 8)), away))
        turn = torch.rand((len(target), *[1] * (target.ndim - 1)), generator=generator).to(target)
        return torch.where(turn < self.config.remapped, other, plain), back

    def _motion(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Random velocities (count, D, *shape) in voxels, on the CPU."""
        fine, coarse = self.config.motions
        strength = torch.rand((count, *[1] * (len(shape) + 1)), generator=generator)
        return strength * (fine.draw(count, shape, generator) + coarse.bend(count, shape, generator))

    def _total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        c = self.config
        weights = {"noise": 1.0, "agreement": c.agreement, "smooth": c.smoothness, "place": c.place}
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
