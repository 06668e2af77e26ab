"""Diff-Def: latent diffusion generates the deformation that turns a general atlas into a conditional one.

Paper: Diff-Def: Diffusion-Generated Deformation Fields for Conditional Atlases (arXiv 2403.16776).

    z       = E(x)                                               a person's scan, by a KL autoencoder
    L_LDM   = |v - v_theta(z_t, t, c)|^2                         v-prediction, conditions c
    u_c     = D_u(z_c),  z_c drawn by the diffusion for c        the decoder, its last layer answering with a field
    A_c     = A o exp(u_c)                                       the general atlas, carried
    L_morph = |1/N sum_n R(A_c, x_n)|^2                          mean displacement to N neighbours of the condition
    L       = L_LDM + m L_morph + b bending(u_c)

Three stages: the autoencoder, the registration network R, then both fixed, the diffusion and the field's decoder.
Ours: the decoder gives a velocity, smoothed; conditions are attended to as Fourier features and learnt vectors, each
of which may be unknown, where the document writes them as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from whence import kernels
from whence.data.frame import Frame, fit_shape
from whence.losses import bending_energy
from whence.models.amortised import AmortisedRegistration
from whence.models.anchor import Anchor
from whence.models.attributes import Attributes
from whence.models.diffdef_config import DiffDefConfig
from whence.models.diffusion import scheduler, wanted
from whence.models.method import Method, Neighbours, Prediction, frozen, stage_at
from whence.models.pretrained import checked
from whence.nets.autoencoder import FieldDecoder, KLAutoencoder
from whence.nets.diffusion import ConditionedUNet
from whence.nets.tokens import AttributeTokens

# The document's ends of the noise schedule.
BETAS = (0.0015, 0.0205)
# Voxels over which a field falls to 0 towards the end of its lattice, where an atlas goes on.
EDGE = 4


class DiffDef(Method):
    """Conditional atlases: the source is the general atlas, targets are people of known conditions."""

    name: ClassVar[str] = "diffdef"
    config_class: ClassVar[type] = DiffDefConfig
    optional: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[bool] = True
    augmented: ClassVar[bool] = False
    # No network sees the atlas that it carries, and its field keeps the place in which it was learnt.
    padded: ClassVar[bool] = False
    sampling: ClassVar[tuple[str, ...]] = ("solver", "solver_steps", "averaged")

    def __init__(
        self,
        config: DiffDefConfig,
        dims: int,
        source_channels: int,
        target_channels: int,
        attributes: Attributes,
    ) -> None:
        super().__init__()
        if source_channels != target_channels:
            raise ValueError(
                f"atlas and people are seen by one autoencoder; got {source_channels} and {target_channels} channels"
            )
        if config.through > config.solver_steps:
            raise ValueError(f"expected at most {config.solver_steps} through; got {config.through}")
        self.config, self.dims, self.channels = config, dims, source_channels
        self.attributes = attributes
        blocks = {"patch": config.vae_patch, "frugal": config.frugal}
        self.vae = KLAutoencoder(dims, source_channels, config.vae_features, config.latent, **blocks)
        self.registration = AmortisedRegistration(
            dims,
            source_channels,
            config.down,
            config.up,
            patch=config.registration_patch,
            window=config.registration_window,
            squarings=config.squarings,
            frugal=config.frugal,
        )
        self.anchor = Anchor(self.registration, config.group_rounds, config.field != "displacement")
        self.tokens = AttributeTokens(attributes.kinds, config.width)
        self.unet = ConditionedUNet(dims, config.latent, config.features, config.blocks, config.attention, config.width)
        self.fields = FieldDecoder(self.vae, config.width if config.told else 0, config.maps)
        self.multiple = math.lcm(self.vae.multiple * self.unet.multiple, self.registration.multiple)
        self.noise = self._solver("ddim")
        # The stage that is trained, of which validation tells.
        self.stage = 2
        # Latents are brought to a deviation of 1.
        self.register_buffer("scale", torch.tensor(1.0))
        # The lattice of training, of which alone it is known what moves where.
        self.register_buffer("lattice", torch.zeros(dims, dtype=torch.int64))

    @classmethod
    def conditions(cls, config: DiffDefConfig) -> tuple[str, ...]:
        return config.conditions

    @classmethod
    def neighbourhood(cls, config: DiffDefConfig) -> Neighbours:
        return Neighbours(config.neighbours, config.neighbour_width, config.dropped)

    @classmethod
    def stages(cls, config: DiffDefConfig) -> tuple[int, ...]:
        return () if config.pretrained else (config.vae_steps, config.registration_steps)

    def bind(self, load: Callable[[str], Any], frame: Frame | None = None) -> None:
        place = self.config.pretrained
        if not place:
            return
        shapes = ("vae_features", "vae_patch", "latent", "down", "up", "registration_patch")
        known = checked(load(place), place, self, shapes, frame)
        for part in ("vae", "registration"):
            getattr(self, part).load_state_dict(getattr(known, part).state_dict())
        self.scale.copy_(known.scale)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, L, *lower) of images (B, C, *spatial): the means of their distributions."""
        return self.vae.encode(images)[0] * self.scale

    def field_of(self, latents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Velocity, or displacement, (B, D, *spatial) in voxels, of latents and of tokens (B, K, width)."""
        field = self.fields(latents / self.scale, tokens.mean(dim=1) if self.config.told else None)
        with torch.autocast(field.device.type, enabled=False):
            return kernels.gaussian(field, self.config.smoothing) if self.config.smoothing else field

    def displacement(self, field: torch.Tensor) -> torch.Tensor:
        """The displacement of a field, in voxels."""
        return field if self.config.field == "displacement" else kernels.exp(field, self.config.squarings)

    def drawn(
        self,
        shape: Sequence[int],
        tokens: torch.Tensor,
        generator: torch.Generator,
        through: int = 0,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Latents (B, L, *lower) for images of ``shape`` under conditions.

        Gradients pass through the last ``through`` steps; ``on_step`` is called with those that are done.
        """
        c = self.config
        lower = [n // self.vae.multiple for n in shape]
        latents = torch.randn((len(tokens), c.latent, *lower), generator=generator).to(tokens.device)
        solver = self._solver(c.solver)
        solver.set_timesteps(c.solver_steps)
        for done, time in enumerate(solver.timesteps, start=1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and done > c.solver_steps - through):
                answer = self.unet(latents, time.expand(len(latents)).to(latents.device), tokens)
                latents = solver.step(answer, time, latents).prev_sample
            if on_step is not None:
                on_step(done)
        return latents

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        atlas, count = batch["source"], self.config.averaged
        shape = tuple(self.lattice.tolist()) if bool(self.lattice.all()) else atlas.shape[2:]
        tokens, drawn = self.tokens(batch["conditions"]), 0.0
        image, steps = self.config.field == "image", self.config.solver_steps
        for draw in range(count):

            def report(done: int, before: int = draw * steps) -> None:
                if self.on_step is not None:
                    self.on_step(before + done, count * steps)

            latents = self.drawn(shape, tokens, generator, on_step=report)
            drawn = drawn + (self.vae.decode(latents / self.scale) if image else self.field_of(latents, tokens)) / count
        if image:
            return Prediction(fit_shape(drawn.clamp(-1, 1), atlas.shape[2:]))
        drawn = _framed(drawn, atlas.shape[2:])
        forward = self.displacement(drawn)
        # A displacement's inverse is for the caller to find.
        backward = self.displacement(-drawn) if self.config.field == "velocity" else None
        # A finer atlas keeps its detail: nothing of it is drawn.
        return Prediction(kernels.warp(atlas, forward), forward, backward, carried=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        c = self.config
        parts = ([self.vae], [self.registration], [self.tokens, self.unet, self.fields])
        rates = (c.vae_rate, c.registration_rate, c.learning_rate)
        return [
            torch.optim.AdamW([p for net in nets for p in net.parameters()], lr=rate)
            for nets, rate in zip(parts, rates, strict=True)
        ]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        c = self.config
        before = self.stages(c)
        self.stage = stage = 2 if c.pretrained else stage_at(step, before)
        self.lattice.copy_(torch.tensor(batch["source"].shape[2:]))
        if step == sum(before):
            # It begins as the decoder of images that the first stage has left.
            self.fields.begin_as(self.vae)
        terms = (self._images, self._registered, self._generated)[stage](batch, generator)
        loss = sum(weight * terms[name] for name, weight in self._weights(stage).items() if name in terms)
        optimizers[stage].zero_grad()
        backward(loss)
        optimizers[stage].step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        if self.stage == 0:
            return self._images(batch, generator, learn=False)
        return (self._registered if self.stage == 1 else self._generated)(batch, generator)

    def _weights(self, stage: int) -> dict[str, float]:
        c = self.config
        weights: tuple[dict[str, float], ...] = (
            {"image": 1.0, "kl": c.kl},
            {"similarity": 1.0, "smooth": c.registration_smoothness},
            {"noise": 1.0, "morphology": c.morphology, "bending": c.bending, "anchor": c.anchor},
        )
        return weights[stage]

    def _images(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator, learn: bool = True
    ) -> dict[str, torch.Tensor]:
        """Terms of the autoencoder, and the latents' scale as it is seen so far."""
        images = batch["target"]
        mean, deviation = self.vae.encode(images)
        drawn = mean + deviation * torch.randn(mean.shape, generator=generator).to(mean)
        if learn:
            with torch.no_grad():
                self.scale.lerp_(1 / mean.std().clamp_min(1e-3), 0.02)
        apart = self.vae.decode(drawn) - images
        divergence = (mean.square() + deviation.square() - 2 * deviation.log() - 1) / 2
        return {"image": apart.abs().mean(), "kl": divergence.sum() / images.numel()}

    def _registered(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Terms of the registration network, of the atlas or a person and a person of like conditions."""
        fixed = self._near(batch, 1)
        atlas = torch.rand((len(fixed), *[1] * (self.dims + 1)), generator=generator) < 0.5
        moving = torch.where(atlas.to(fixed.device), batch["source"], batch["target"])
        return self.registration.terms(moving, fixed, generator)

    def _generated(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Terms of the third stage: the noise, and what the generated field does to the atlas."""
        tokens = self.tokens(batch["conditions"])
        terms = {"noise": self._noise(batch["target"], tokens, generator)}
        if self.config.field == "image":
            return terms
        latents = self.drawn(batch["source"].shape[2:], tokens, generator, self.config.through)
        field = self.field_of(latents, tokens)
        mean = self._anchored(batch) if self.config.anchor or self.config.registered else None
        terms["morphology"] = self._morphology(field, batch, mean).square().sum(dim=1).mean()
        terms["bending"] = bending_energy(field)
        if self.config.anchor and mean is not None:
            mean = self.anchor.moved_on(mean, batch["source"], batch["near_target"], batch["near_index"])
            terms["anchor"] = (field - mean).square().sum(dim=1).mean()
        return terms

    def _anchored(self, batch: dict[str, torch.Tensor], count: int | None = None) -> torch.Tensor:
        """Mean of the general atlas's own fields (B, D, *spatial) onto the neighbours, or the first ``count``."""
        return self.anchor.mean(batch["source"], self._near(batch, count), batch["near_index"][:, :count])

    def _near(self, batch: dict[str, torch.Tensor], count: int | None) -> torch.Tensor:
        return batch["near_target"][:, : count and count * self.channels]

    def _morphology(
        self, field: torch.Tensor, batch: dict[str, torch.Tensor], mean: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean displacement (B, D, *spatial) to the neighbours of the atlas that a field makes.

        ``mean`` is the general atlas's own mean field onto all of them, for those who are not registered.
        """
        exact, count = self.config.gradient == "exact", self.config.registered or None
        with frozen([self.registration]), torch.set_grad_enabled(torch.is_grad_enabled() and not exact):
            carried = kernels.warp(batch["source"], self.displacement(field))
            apart = self.registration.mean(carried, self._near(batch, count))
        if count and mean is not None:
            # Those who are registered differ from the rest by where they lie, which is known of all.
            apart = apart + mean - self._anchored(batch, count)
        # What an exact registration would answer to a field that goes a little further: so much less.
        return apart - (field - field.detach()) if exact else apart

    def _noise(self, images: torch.Tensor, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        with torch.no_grad():
            clean = self.encode(images)
        step = torch.randint(0, self.config.noise_steps, (len(clean),), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        answer = self.unet(self.noise.add_noise(clean, noise, step), step, tokens)
        return (answer - wanted(self.noise, clean, noise, step)).square().mean()

    def _solver(self, name: str) -> Any:
        return scheduler(name, self.config.noise_steps, "scaled_linear", "v_prediction", clip=False, betas=BETAS)


def _framed(field: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A field (B, D, *spatial) on a larger or smaller lattice of the same middle; beyond its own nothing moves."""
    for axis, (own, asked) in enumerate(zip(field.shape[2:], shape, strict=True), start=2):
        if own < asked:
            inwards = torch.arange(own, device=field.device)
            inwards = torch.minimum(inwards, inwards.flip(0)) / EDGE
            field = field * inwards.clamp(max=1).reshape([-1 if n == axis else 1 for n in range(field.ndim)])
    return fit_shape(field, shape, 0.0)
