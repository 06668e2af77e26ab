"""Plasticine: a diffusion translator that carries its own diffeomorphic trace.

Paper: Plasticine: A Traceable Diffusion Model for Medical Image Translation (summary and abstract). What it states:
intensity translation and spatial transformation inside one denoising diffusion model, precomputed structure maps, a
diffeomorphic, topology-preserving correspondence. The equations are ours.

    z_t   = sqrt(a_t) y + sqrt(1 - a_t) e                   a target y under the noise of step t
    S_t   = R(z_t, a_t)                                     the structure that is read off it
    p     = P(S)                                            where the target's population has it (models/population.py)
    v_t   = p + a_t^2 T(S, p, S_t, z_t, a_t)                where the target's points come from in the source:
    phi_t = exp(v_t)
    L     = |D(z_t, S o psi, t) - w|^2                      noise: w it or the velocity, psi phi or phi_t by turns
            + w_p (a_t^2 |phi_t - phi|_1 + |phi_0 - phi|_1) place: phi the true map, or else that of no noise, phi_0
            + w_s (1 - corr(S o phi_0, S(y)))               agreement; of labels |S o phi_0 - S(y)|_1
            + w_e |S_t, S_0 - S(y)|^2                       reading
            + w_r |grad v_t, grad v_0|^2                    smoothness
            + P's own terms

S is the structure map of the source, from its image, its labels or both. Without P, which needs labels, p is 0 and both
a_t^2 are 1. Sampling runs t from noise to image; the field of the finished image is the trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch.nn import functional as F

from whence import kernels
from whence.losses import gradient_energy
from whence.models.diffusion import scheduler, wanted
from whence.models.method import Method, Prediction
from whence.models.moved import another_device, turns
from whence.models.plasticine_config import PlasticineConfig
from whence.models.population import Population
from whence.models.structure import Structure, sees_labels
from whence.nets import DemonsNet, DenoisingUNet, Reader

# Adam's memory against an adversary.
ADVERSARIAL = (0.5, 0.99)


class Plasticine(Method):
    """Intensity translator and spatial transformation module in one denoising diffusion model."""

    name: ClassVar[str] = "plasticine"
    config_class: ClassVar[type] = PlasticineConfig
    optional: ClassVar[tuple[str, ...]] = ()
    unpaired: ClassVar[bool] = True
    draws: ClassVar[bool] = True
    sampling: ClassVar[tuple[str, ...]] = ("solver", "solver_steps")
    # Without its spatial transformation module.
    recovered_by: ClassVar[str] = "mind"

    def __init__(self, config: PlasticineConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        self.config, self.dims, self.channels = config, dims, target_channels
        self.structure = Structure(config.structure, dims, source_channels)
        channels = self.structure.channels
        if self.structure.labelled:
            self.inputs = ("source", "source_labels")
        sizes = (config.blocks, config.attention, config.patch)
        self.denoiser = DenoisingUNet(dims, channels + target_channels, target_channels, config.features, *sizes)
        self.multiple = self.denoiser.multiple
        if config.transformation:
            # A noisy target is seen with its share of signal.
            context, features = target_channels + 1, config.spatial_features
            self.reader = Reader(dims, self.structure.of_image + context, channels, features)
            self.spatial = DemonsNet(dims, channels, context, features, config.scales, config.squarings)
            self.multiple = math.lcm(self.multiple, self.spatial.multiple, self.reader.multiple)
        self.population: Population | None = None
        if config.population:
            seen = channels - self.structure.of_image
            self.population = Population(dims, seen, config.spatial_features, config.squarings)
            self.multiple = math.lcm(self.multiple, self.population.multiple)
        if dims == 2:
            # Convolutions of few channels on a CPU take as little as a third of the time, with the same results.
            self.to(memory_format=torch.channels_last)
        self.noise = scheduler("ddim", config.noise_steps, config.noise_schedule, config.answer)

    @classmethod
    def sees_labels(cls, config: PlasticineConfig) -> bool:
        return sees_labels(config.structure)

    def derive(self, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Structure maps (1, K, *spatial) of a sample's images, computed once and kept with it."""
        images = {name: image for name, image in sample.items() if not name.endswith("_labels")}
        return {
            f"{name}_structure": self.structure(image, sample.get(f"{name}_labels")) for name, image in images.items()
        }

    def read(self, noisy: torch.Tensor, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The structure (B, K, *spatial) that a noisy target shows, and what it is seen with (B, C + 1, *spatial).

        ``signal`` (B,) is sqrt(a_t), the share of the target in ``noisy``: 1 for an image without noise.
        """
        level = signal.to(noisy).reshape(-1, *[1] * (noisy.ndim - 1)).expand(len(noisy), 1, *noisy.shape[2:])
        # sqrt(a_t) z_t is what Wiener's filter leaves of the noise: at its height nothing, which no field then follows.
        context = torch.cat([level * noisy, level], dim=1)
        return self.reader(torch.cat([level * self.structure.image(noisy), context], dim=1)), context

    def start(self, structure: torch.Tensor) -> torch.Tensor | None:
        """Velocity (B, D, *spatial) to where the target's population has a structure; None without that part."""
        return None if self.population is None else self.population(structure[:, self.structure.of_image :])

    def velocity(
        self, structure: torch.Tensor, start: torch.Tensor | None, noisy: torch.Tensor, signal: torch.Tensor
    ) -> torch.Tensor:
        """Velocity (B, D, *spatial) in voxels whose exponential says where the target's points come from."""
        return self.spatial(structure, *self.read(noisy, signal), start, self._share(signal))

    def _share(self, signal: torch.Tensor) -> torch.Tensor | None:
        """How much what is seen may move what the population says: a_t^2 (B,); None where nothing is said."""
        return None if self.population is None else signal.pow(4)

    def denoise(self, carried: torch.Tensor, noisy: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """The denoiser's answer, given the source's structure as it is carried."""
        return self.denoiser(torch.cat([carried, noisy], dim=1), step)

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        c = self.config
        structure = self.structure(batch["source"], batch.get("source_labels"))
        count = len(structure)
        image = torch.randn((count, self.channels, *structure.shape[2:]), generator=generator).to(structure)
        solver = scheduler(c.solver, c.noise_steps, c.noise_schedule, c.answer)
        solver.set_timesteps(c.solver_steps)
        carried, start = structure, self.start(structure) if c.transformation else None
        for done, time in enumerate(solver.timesteps, start=1):
            step = time.expand(count).to(image.device)
            if c.transformation:
                velocity = self.velocity(structure, start, image, self._signal(step))
                carried = kernels.warp(structure, kernels.exp(velocity, c.squarings))
            image = solver.step(self.denoise(carried, image, step), time, image).prev_sample
            if self.on_step is not None:
                self.on_step(done, len(solver.timesteps))
        image = image.clamp(-1, 1)
        if not c.transformation:
            return Prediction(image)
        velocity = self.velocity(structure, start, image, torch.ones(count).to(image))
        return Prediction(image, kernels.exp(velocity, c.squarings), kernels.exp(-velocity, c.squarings))

    def _signal(self, step: torch.Tensor) -> torch.Tensor:
        """sqrt(a_t) of steps (B,)."""
        return self.noise.alphas_cumprod.to(step.device)[step].sqrt()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rate = self.config.learning_rate
        if self.population is None:
            return [torch.optim.Adam(self.parameters(), lr=rate)]
        other = [p for name, p in self.named_parameters() if not name.startswith("population.")]
        groups = [{"params": other}, {"params": self.population.movers(), "betas": ADVERSARIAL}]
        critic = torch.optim.Adam(self.population.critic.parameters(), lr=rate / 2, betas=ADVERSARIAL)
        return [torch.optim.Adam(groups, lr=rate), critic]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        maps = self._maps(batch["target"], generator)
        terms = self._terms(batch, maps, generator)
        if self.population is not None:
            found, carried = self.population.terms(self._labelled(batch["source_structure"], maps[0]))
            terms |= found
        loss = self._total(terms)
        optimizers[0].zero_grad()
        backward(loss)
        optimizers[0].step()
        report = {"loss": loss, **terms}
        if self.population is not None:
            judged = self.population.judged(self._labelled(batch["target_structure"], maps[0]), carried, step)
            optimizers[1].zero_grad()
            backward(judged)
            optimizers[1].step()
            report["critic"] = judged
        return {name: term.detach() for name, term in report.items()}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._terms(batch, self._maps(batch["target"], generator), generator)

    def _terms(
        self,
        batch: dict[str, torch.Tensor],
        maps: tuple[torch.Tensor, torch.Tensor],
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        c, target, goal = self.config, batch["target"], batch["target_structure"]
        structure, own, known = self._source(batch, maps[0], generator)
        true, count = maps[1], len(target)
        step = torch.randint(0, c.noise_steps, (count,), generator=generator).to(target.device)
        noise = torch.randn(target.shape, generator=generator).to(target)
        noisy = self.noise.add_noise(target, noise, step)
        sought = wanted(self.noise, target, noise, step)
        if not c.transformation:
            return {"noise": (self.denoise(structure, noisy, step) - sought).square().mean()}
        signals = [self._signal(step), torch.ones(count).to(target)]
        looks = [self.read(image, signal) for image, signal in zip((noisy, target), signals, strict=True)]
        # Targets are where their population has them.
        start = None
        if self.population is not None:
            start = torch.zeros_like(true) if c.given == 0 else torch.where(known, 0.0, self.start(structure).detach())
        velocities = [
            self.spatial(structure, *look, start, self._share(signal))
            for look, signal in zip(looks, signals, strict=True)
        ]
        hidden, plain = (kernels.exp(velocity, c.squarings) for velocity in velocities)
        right = torch.where(known, true, plain.detach())
        # Another person's structure fits no better than a diffeomorphism can make it; a denoiser that is to draw along
        # what it is given must see what fits.
        aligned = turns(c.aligned, target, generator)
        carried = kernels.warp(torch.where(aligned, own, structure), torch.where(aligned, true, hidden))
        apart = (hidden - right).abs().flatten(1).mean(dim=1)
        share = self._share(signals[0])
        return {
            "noise": (self.denoise(carried, noisy, step) - sought).square().mean(),
            "place": ((apart if share is None else share * apart).mean() + (plain - right).abs().mean()) / 2,
            "agreement": self._apart(kernels.warp(structure, plain), goal),
            "reading": torch.stack([(seen - goal).square().mean() for seen, _ in looks]).mean(),
            "smooth": (gradient_energy(velocities[0]) + gradient_energy(velocities[1])) / 2,
        }

    def _apart(self, carried: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """How far a carried structure is from the target's: by correlation of what images show, by labels' difference.

        Edges of another modality are others, stronger and weaker; their difference is least where there are none left,
        and a field that shrinks the image away would answer it best.
        """
        shown = self.structure.of_image
        parts = torch.cat([carried, goal])[:, :shown].flatten(2)
        ours, theirs = F.normalize(parts - parts.mean(dim=2, keepdim=True), dim=2).chunk(2)
        unlike = 1 - (ours * theirs).sum(dim=2).mean(dim=0)
        different = (carried - goal)[:, shown:].abs().flatten(2).mean(dim=(0, 2))
        return torch.cat([unlike, different]).mean()

    def _maps(self, target: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Random maps of targets, and back (B, D, *spatial)."""
        away, back = self.config.motion(len(target), tuple(target.shape[2:]), generator)
        if not self.config.transformation:
            away, back = torch.zeros_like(away), torch.zeros_like(back)
        return away.to(target), back.to(target)

    def _labelled(self, structure: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
        """The structure's maps of labels, moved as people of either population might be."""
        return kernels.warp(structure[:, self.structure.of_image :], away, mode="nearest")

    def _source(
        self, batch: dict[str, torch.Tensor], away: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A source's structure, the moved target's own (B, K, *spatial), whether that is the source."""
        c, target, labels = self.config, batch["target"], batch.get("target_labels")
        shown = target
        if self.structure.of_image:
            shown = another_device(kernels.warp(target, away), generator, c.remapped, c.disturbed)
        moved = None if labels is None else kernels.warp(labels, away, mode="nearest")
        given, own = turns(c.given, target, generator), self.structure(shown, moved)
        return torch.where(given, batch["source_structure"], own), own, ~given

    def _total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        c = self.config
        weights = {"noise": 1.0, "agreement": c.agreement, "smooth": c.smoothness, "place": c.place}
        weights |= {"reading": c.reading, "population": c.population, "population smooth": c.smoothness}
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
