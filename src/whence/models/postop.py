"""Retrieval-based post-operative generation: a similar past case prompts a latent diffusion model.

Paper: Pre-to-Post Operative MRI Generation with Retrieval-based Visual In-Context Learning.

    Q_comp  = M_bbox I_post + (1 - M_bbox) Q_pre             the past case's resection on the query's image
    P_tumor = [E_seg(M_pre), E_comp(Q_comp)]                 the prompt, which the U-Net attends to
    G       = [[E(I_pre), E(I_post)], [E(Q_pre), x_t]]       visual in-context learning: a grid of latents
    L_LDM   = |e - e_theta(G, t, P_tumor)|^2                 noise, in the cell of x_t

I_pre and I_post are the images of a past case whose tumour overlaps the query's most, M_bbox the box of its resection,
E the autoencoder. At inference classifier-free guidance: e = e(0) + s (e(P_tumor) - e(0)). Ours: beside the grid of
latents a grid of masks, [[tumour, resection], [tumour, plan]], whose last cell is unknown, or the resection that is
planned; and a carrier C, by which the outcome is the scan's own voxels, moved and changed, at the image's resolution:

    v, u    = C(Q_pre, x_0, M_pre, plan)                     the trace is exp(v)
    Q_post  = Q_pre o exp(v) + u                             what u adds is novel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from whence import kernels
from whence.errors import InputError
from whence.losses import gradient_energy, make_similarity
from whence.models.composite import beside_neighbours, cell_of, in_context
from whence.models.diffusion import cleaned, scheduler, wanted
from whence.models.instruction import SLICES, cut_otherwise, focus, mask_grid, only_known, part_of, some, told_composite
from whence.models.method import Method, Prediction, Retrieval
from whence.models.moved import turns
from whence.models.postop_config import PostopConfig
from whence.nets import Carrier
from whence.nets.latent import autoencoder, check_schedule, denoiser, described, rebuilt, stable_diffusion, widened
from whence.nets.prompt import SamEncoder, VectorEncoder

WIDTH = 1024
# Of the local correlation, voxels.
WINDOW = 9
# The share of steps in which a volume's slices heed their neighbours.
SETTLED = 0.75
# An answer that diffusers has another name for.
ANSWERS = {"change": "sample"}


class Postop(Method):
    """Latent diffusion prompted by a retrieved case; slices only."""

    name: ClassVar[str] = "postop"
    config_class: ClassVar[type] = PostopConfig
    optional: ClassVar[tuple[str, ...]] = ()
    masks: ClassVar[tuple[str, ...]] = ("source_mask", "target_cavity")
    inputs: ClassVar[tuple[str, ...]] = (
        "source",
        "source_mask",
        *("case_source", "case_source_mask", "case_target", "case_target_cavity"),
    )
    draws: ClassVar[bool] = True
    sampling: ClassVar[tuple[str, ...]] = ("strategy", "guidance", "heeded", "neighbours", "solver", "solver_steps")
    together: ClassVar[bool] = True
    framed: ClassVar[bool] = True

    def __init__(
        self,
        config: PostopConfig,
        dims: int,
        source_channels: int,
        target_channels: int,
        networks: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dims != 2:
            raise ValueError(f"it generates slices; expected a plane of a volume's, got {dims}D")
        if source_channels != target_channels:
            raise ValueError(
                f"both images are seen by one autoencoder; got {source_channels} and {target_channels} channels"
            )
        self.config, self.dims, self.channels = config, dims, source_channels
        unet: nn.Module | None = None
        of_encoder: dict[str, Any] | None = None
        if networks:
            of_encoder = networks.get("encoder")
            self.vae, unet = rebuilt(networks["vae"], networks["unet"])
        elif config.pretrained:
            self.vae, unet = stable_diffusion(config.pretrained)
            if unet is not None:
                check_schedule(config.pretrained, config.answer, config.noise_steps, config.noise_schedule)
        else:
            self.vae = autoencoder(source_channels, config.vae_features, config.latent)
        latent = int(self.vae.config.latent_channels)
        self.shrinks = 2 ** (len(self.vae.config.block_out_channels) - 1)
        # The grid, where in it the cell is, masks, and beside the cell the query and the composite.
        inputs = 3 * latent + 1 + self.shrinks**2
        self.unet = denoiser(inputs, latent, config.features, WIDTH) if unet is None else widened(unet, inputs)
        levels = len(self.unet.config.block_out_channels)
        self.seen = int(self.vae.config.in_channels)
        if self.seen != self.channels and self.channels > 1:
            raise ValueError(
                f"the autoencoder sees images of {self.seen} channels; expected as many, or 1, got {self.channels}"
            )
        self.multiple = self.shrinks * 2 ** (levels - 1)
        width, small = int(self.unet.config.cross_attention_dim), (16, 32, 64, 64)
        self.of_mask = VectorEncoder(1, small, width)
        self.of_composite = (
            SamEncoder(config.encoder, width, config.encoder_scale, described=of_encoder)
            if config.encoder
            else VectorEncoder(source_channels, small, width)
        )
        # What stands for a prompt that is left out.
        self.unprompted = nn.Parameter(torch.zeros(2, width))
        # Beside the scan the outcome's latents, the tumour and the plan.
        self.carrier = Carrier(dims, source_channels, latent + 2, config.carrier) if config.carrier else None
        self.multiple = max(self.multiple, 1 if self.carrier is None else self.carrier.multiple)
        self.align = make_similarity("ncc", window=WINDOW)
        self.noise = self._solver("ddim")
        # The faster layout of convolutions in the plane.
        self.to(memory_format=torch.channels_last)
        # Latents are brought to a deviation of 1.
        self.register_buffer("scale", torch.tensor(float(self.vae.config.scaling_factor) if config.pretrained else 1.0))

    def networks(self) -> dict[str, Any]:
        if not self.config.pretrained and not self.config.encoder:
            return {}
        found = {"vae": described(self.vae), "unet": described(self.unet)}
        if self.config.encoder:
            found["encoder"] = self.of_composite.encoder.config.to_dict()
        return found

    @classmethod
    def retrieval(cls, config: PostopConfig) -> Retrieval:
        return Retrieval(config.strategy, config.top)

    @classmethod
    def stages(cls, config: PostopConfig) -> tuple[int, ...]:
        return (config.vae_steps,)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, L, h, w) of images (B, C, H, W) in [-1, 1]: the means of their distributions."""
        return self.vae.encode(self._coloured(images)).latent_dist.mode() * self.scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of latents."""
        shown = self.vae.decode(latents / self.scale).sample
        return (
            shown if self.seen == self.channels else shown.mean(dim=1, keepdim=True).expand(-1, self.channels, -1, -1)
        )

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """``decode``, of some slices at a time."""
        return torch.cat([self.decode(part) for part in latents.split(SLICES)])

    def carried(
        self, latents: torch.Tensor, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The scan, carried and changed to what ``latents`` say; the scan carried alone; the velocity (B, D, H, W).

        ``batch`` holds the ``told`` samples (B, 1, 1, 1) as well.
        """
        assert self.carrier is not None
        scan = batch["source"]
        outcome = F.interpolate(latents, size=scan.shape[2:], mode="bilinear", align_corners=False)
        tumour = only_known(batch["source_mask"], self.config.segmentation)
        plan = only_known(batch["resection_mask"], batch["told"])
        velocity, change = self.carrier(scan, torch.cat([outcome, tumour, plan], dim=1))
        moved = kernels.warp(scan, kernels.exp(velocity, self.config.squarings))
        return moved + change, moved, velocity

    def prompt(self, mask: torch.Tensor, composed: torch.Tensor) -> torch.Tensor:
        """P_tumor (B, 2, width) of masks (B, 1, H, W) and composites (B, C, H, W)."""
        found = list(self.unprompted.expand(len(mask), -1, -1).unbind(dim=1))
        if self.config.segmentation:
            found[0] = torch.cat([self.of_mask(few) for few in mask.split(SLICES)])
        if self.config.composed:
            found[1] = torch.cat([self.of_composite(few) for few in composed.split(SLICES)])
        return torch.stack(found, dim=1)

    def answer(
        self,
        noisy: torch.Tensor,
        step: torch.Tensor,
        context: Sequence[torch.Tensor],
        masks: torch.Tensor,
        prompt: torch.Tensor,
    ) -> torch.Tensor:
        """The U-Net's answer for the cell, given latents (case before and after, query, composite) and ``masks``."""
        before, after, query, composed = context
        beside = torch.cat([torch.ones_like(noisy[:, :1]), query, composed], dim=1)
        empty = torch.zeros_like(beside)
        parts = [in_context(before, after, query, noisy), in_context(empty, empty, empty, beside), masks]
        grid = torch.cat(parts, dim=1)
        found = cell_of(self.unet(grid, step, encoder_hidden_states=prompt).sample)
        return query + found if self.config.answer == "change" else found

    def _answers(
        self,
        noisy: torch.Tensor,
        step: torch.Tensor,
        context: Sequence[torch.Tensor],
        masks: torch.Tensor,
        prompt: torch.Tensor,
    ) -> torch.Tensor:
        """``answer``, of some slices at a time."""
        contexts = zip(*(part.split(SLICES) for part in context), strict=True)
        parts = zip(*(part.split(SLICES) for part in (noisy, step, masks, prompt)), strict=True)
        return torch.cat([self.answer(n, t, c, m, p) for c, (n, t, m, p) in zip(contexts, parts, strict=True)])

    def _solver(self, name: str) -> Any:
        c = self.config
        return scheduler(name, c.noise_steps, c.noise_schedule, ANSWERS.get(c.answer, c.answer), clip=False)

    def _masks(self, batch: dict[str, torch.Tensor], told: torch.Tensor) -> torch.Tensor:
        case, tumour = self.config.instructed, self.config.segmentation
        return mask_grid(batch, (case, case, tumour, told), self.shrinks)

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        c, planned = self.config, "resection_mask" in batch
        if planned and not c.planned:
            raise InputError("this model was trained without plans (planned is 0); expected no resection to follow")
        told = torch.full((len(batch["source"]), 1, 1, 1), planned, device=batch["source"].device)
        batch = {"resection_mask": batch["case_target_cavity"], **batch, "told": told}
        composed = told_composite(batch, told)
        shown = {
            "retrieved before": batch["case_source"],
            "retrieved after": batch["case_target"],
            "composite": composed,
        }
        same = torch.Generator()
        same.set_state(generator.get_state())
        latents = self._outcome(batch, told, composed, generator)
        if planned and c.heeded != 1:
            nothing = torch.zeros_like(told)
            free = self._outcome(batch, nothing, told_composite(batch, nothing), same)
            latents = free + c.heeded * (latents - free)
        if self.carrier is None:
            # What is cut out, by plan or in the past case, has no source; its wall, which moves most, has one.
            where = 1 - batch["resection_mask"]
            return Prediction(self._decoded(latents).clamp(-1, 1), images=shown, comparable=where)
        seen = {"latents": latents} | {
            name: batch[name] for name in ("source", "source_mask", "resection_mask", "told")
        }
        found = [self.carried(few["latents"], few) for few in some(seen)]
        image, velocity = (torch.cat([part[n] for part in found]) for n in (0, 2))
        forward, backward = (kernels.exp(way * velocity, c.squarings) for way in (1, -1))
        return Prediction(image.clamp(-1, 1), forward, backward, images=shown, carried=True)

    def _outcome(
        self, batch: dict[str, torch.Tensor], told: torch.Tensor, composed: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Latents (B, L, h, w) of the outcome, of samples that are ``told`` (B, 1, 1, 1) their plan."""
        c, query = self.config, batch["source"]
        context = self._context(batch, composed)
        prompt, masks = self.prompt(batch["source_mask"], composed), self._masks(batch, told)
        nothing = self.unprompted.expand(len(query), -1, -1)
        # One noise for all slices of a volume, so that what they leave open they settle alike.
        latents = torch.randn(context[0][:1].shape, generator=generator).to(query).expand_as(context[0])
        solver = self._solver(c.solver)
        solver.set_timesteps(c.solver_steps)
        for done, time in enumerate(solver.timesteps, start=1):
            step = time.expand(len(query)).to(query.device)
            found = self._answers(latents, step, context, masks, prompt)
            if c.guidance != 1:
                free = self._answers(latents, step, context, masks, nothing)
                found = free + c.guidance * (found - free)
            latents = solver.step(found, time, latents).prev_sample
            if done <= SETTLED * len(solver.timesteps):
                places = batch["places"][:, 0] if "places" in batch else None
                latents = beside_neighbours(latents, c.neighbours, places)
            if self.on_step is not None:
                self.on_step(done, len(solver.timesteps))
        return latents

    def optimizers(self) -> list[torch.optim.Optimizer]:
        of_vae = {id(part) for part in self.vae.parameters()}
        others = [part for part in self.parameters() if id(part) not in of_vae and part.requires_grad]
        rates = (self.config.learning_rate, self.config.vae_rate)
        return [torch.optim.AdamW(p, lr=rate) for p, rate in zip((others, self.vae.parameters()), rates, strict=True)]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        alone = step < self.config.vae_steps
        terms = (self._images if alone else self._generated)(batch, generator)
        weights = {"image": 1.0, "kl": self.config.kl} if alone else self._weights()
        loss = sum(weight * terms[name] for name, weight in weights.items() if name in terms)
        optimizer = optimizers[1 if alone else 0]
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._images(batch, generator, learn=False) | self._generated(batch, generator)

    def _weights(self) -> dict[str, float]:
        c = self.config
        return {"noise": 1.0, "outcome": c.image, "align": c.align, "smooth": c.smoothness}

    def _images(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator, learn: bool = True
    ) -> dict[str, torch.Tensor]:
        """Terms of the autoencoder, and the latents' scale as it is seen so far."""
        images = self._coloured(torch.cat([batch["source"], batch["target"]]))
        found = self.vae.encode(images).latent_dist
        drawn = found.mean + found.std * torch.randn(found.mean.shape, generator=generator).to(found.mean)
        if learn:
            with torch.no_grad():
                self.scale.lerp_(1 / found.mean.std().clamp_min(1e-3), 0.02)
        apart = self.vae.decode(drawn).sample - images
        # What is small and far from its surroundings, as a cavity, counts by its square.
        return {
            "image": apart.abs().mean() + apart.square().mean(),
            "kl": found.kl().mean() / images[0].numel(),
        }

    def _generated(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Terms of the denoiser, and of the carrier's outcome by its answer."""
        c = self.config
        told, otherwise = turns(c.planned, batch["target"], generator), turns(c.otherwise, batch["target"], generator)
        batch = _planned(batch, told & otherwise, generator)
        target, composed = batch["target"], told_composite(batch, told)
        with torch.no_grad():
            context, clean = self._context(batch, composed), self.encode(target)
        prompt = self.prompt(batch["source_mask"], composed)
        masks = self._masks(batch, told)
        unseen = turns(c.dropped, target, generator)[..., 0]
        prompt = torch.where(unseen, self.unprompted.expand_as(prompt), prompt)
        chance = torch.rand(len(target), generator=generator) ** (1 / c.noisier)
        step = (c.noise_steps * chance).long().clamp_max(c.noise_steps - 1).to(target.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = self.noise.add_noise(clean, noise, step)
        answer = self.answer(noisy, step, context, masks, prompt)
        apart = answer - wanted(self.noise, clean, noise, step)
        terms = {"noise": (focus(batch, clean.shape[2:], self.shrinks, c.focus) * apart.square()).mean()}
        if self.carrier is None:
            return terms
        batch["told"] = told
        outcome, moved, velocity = self.carried(cleaned(self.noise, answer, noisy, step), batch)
        terms["outcome"] = (focus(batch, target.shape[2:], self.shrinks, c.focus) * (outcome - target).abs()).mean()
        terms["align"] = self.align(moved, target, 1 - batch["resection_mask"])
        return {**terms, "smooth": gradient_energy(velocity)}

    def _context(self, batch: dict[str, torch.Tensor], composed: torch.Tensor) -> list[torch.Tensor]:
        """Latents of the case before and after, of the query and of the composite; zeros for what is left out."""
        images = [batch[name] for name in ("case_source", "case_target", "source")]
        found = [torch.cat([self.encode(few) for few in part.split(SLICES)]) for part in (*images, composed)]
        used = (self.config.instructed, self.config.instructed, True, self.config.composed)
        return [part if use else torch.zeros_like(part) for part, use in zip(found, used, strict=True)]

    def _coloured(self, images: torch.Tensor) -> torch.Tensor:
        """Images of as many channels as the autoencoder sees."""
        if images.shape[1] == self.seen:
            return images
        return images.mean(dim=1, keepdim=True).expand(-1, self.seen, -1, -1)


def _planned(
    batch: dict[str, torch.Tensor], otherwise: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """A training batch with its plans, ``resection_mask``: what was cut, or a part of the tumour, and its outcome."""
    cavity = batch["target_cavity"]
    if not bool(otherwise.any()):
        return {**batch, "resection_mask": cavity}
    part = part_of(torch.maximum(batch["source_mask"], cavity), generator)
    # A small cavity, stretched, is little but its own blurred edge.
    sizes = [mask.flatten(1).sum(dim=1).reshape(otherwise.shape) for mask in (cavity, part)]
    otherwise = otherwise & (sizes[0] > 0) & (sizes[0] >= sizes[1] / 2)
    target = torch.where(otherwise, cut_otherwise(batch, part), batch["target"])
    return {**batch, "target": target, "resection_mask": torch.where(otherwise, part, cavity)}
