"""TraceTrans: one encoder, two decoders; an image and a diffeomorphism that constrain each other.

Paper: TraceTrans: Translation and Spatial Tracing for Surgical Prediction (arXiv 2510.22379).

    L       = a L_trans + (1 - a) L_deform + g L_cross
    L_trans = |y_trans - y|_1 + l_adv (D_trans(x, y_trans) - 1)^2
    L_deform= DNMI_16(y_warp, y) + l_adv (D_warp(x, y_warp) - 1)^2 + l_smooth |grad v|^2
    L_cross = DNMI_32(y_trans, y_warp)

with y_warp = x o exp(v). At a = 1, g = 0 it is Pix2Pix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from whence import kernels
from whence.losses import gradient_energy, lsgan_discriminator, lsgan_generator, make_similarity
from whence.models.method import Method, Prediction, frozen
from whence.nets import Decoder, Encoder, VelocityHead, patch_discriminator
from whence.nets.pyramid import CONV

_RANGES = (
    ("alpha", 0, 1),
    ("gamma", 0, 1e6),
    ("squarings", 0, 16),
    ("smoothness", 0, 1e6),
    ("adversarial", 0, 1e6),
    ("deform_l1", 0, 1e6),
    ("discriminator_filters", 1, 4096),
    ("discriminator_layers", 1, 8),
    ("beta1", 0, 0.9999),
)


@dataclass(frozen=True)
class TraceTransConfig:
    """Options of TraceTrans; the defaults are the published setting where the paper names one.

    Args:
        features: channels of the encoder, from full resolution down.
        velocity_scale: the velocity is predicted at 1/scale of the resolution (a power of two) and
            interpolated; 1 as published.
        squarings: steps of scaling and squaring.
        alpha: share of the translation stream; 1 leaves the deformation stream out.
        gamma: weight of the cross-domain term L_cross.
        stream: dual, or single (no deformation stream at all).
        similarity: what the deformation stream compares: nmi as published, ncc, mind or mse.
        similarity_bins: histogram bins of nmi in the deformation stream.
        similarity_window: window of ncc, voxels.
        align_within: where the deformation stream compares: the whole image as published, or the body, that is
            where the mean of a window rises a tenth of the range above the background, and a window around it.
        cross_to: which stream L_cross trains: both as published, or the translation alone, which then
            follows the deformation without holding it back.
        cross_bins: histogram bins of L_cross.
        compared_channel: the source's channel that is compared with the target where their numbers of
            channels differ.
        deform_l1: weight of an L1 term in the deformation stream.
        adversarial: weight of both adversarial terms; 0 trains no discriminator.
        smoothness: weight of the velocity's gradient energy.
        discriminator_filters: first filters of the PatchGANs.
        discriminator_layers: strided layers of the PatchGANs.
        learning_rate: of both optimisers.
        discriminator_learning_rate: of the discriminators; the generator's if 0.
        beta1: first beta of Adam.
    """

    features: tuple[int, ...] = (64, 128, 256, 512, 512)
    velocity_scale: int = 1
    squarings: int = 7
    alpha: float = 0.5
    gamma: float = 1.0
    stream: Literal["dual", "single"] = "dual"
    similarity: Literal["nmi", "ncc", "mind", "mse"] = "nmi"
    similarity_bins: int = 16
    similarity_window: int = 9
    align_within: Literal["image", "body"] = "image"
    cross_to: Literal["both", "translation"] = "both"
    cross_bins: int = 32
    compared_channel: int = 0
    deform_l1: float = 0.0
    adversarial: float = 0.01
    smoothness: float = 1.0
    discriminator_filters: int = 64
    discriminator_layers: int = 3
    learning_rate: float = 2e-4
    discriminator_learning_rate: float = 0.0
    beta1: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}; got {getattr(self, name)}")
        if not self.features or min(self.features) < 1:
            raise ValueError(f"features are channel counts from full resolution down; got {list(self.features)}")
        if self.velocity_scale not in [2**level for level in range(len(self.features))]:
            raise ValueError(
                f"velocity_scale is a power of two below 2^{len(self.features)}; got {self.velocity_scale}"
            )


class TraceTrans(Method):
    """Dual-stream translator: images (B, C, *spatial) in [-1, 1] -> image, velocity, displacement."""

    name: ClassVar[str] = "tracetrans"
    config_class: ClassVar[type] = TraceTransConfig

    def __init__(self, config: TraceTransConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        if config.compared_channel >= source_channels:
            raise ValueError(f"compared_channel {config.compared_channel} of a source of {source_channels} channels")
        self.config = config
        self.target_channels = target_channels
        self.encoder = Encoder(dims, source_channels, config.features)
        self.translation = nn.Sequential(
            Decoder(dims, config.features),
            CONV[dims](config.features[0], target_channels, 3, padding=1),
            nn.Tanh(),
        )
        self.multiple = self.encoder.multiple
        self.deforms = config.stream == "dual" and config.alpha < 1
        if self.deforms:
            level = config.velocity_scale.bit_length() - 1
            self.deformation = Decoder(dims, config.features, stop=level)
            self.velocity = VelocityHead(dims, config.features[level], config.velocity_scale)
        self.adversarial = config.adversarial > 0
        if self.adversarial:
            pair = source_channels + target_channels
            options = (config.discriminator_filters, config.discriminator_layers)
            self.judge_translation = patch_discriminator(dims, pair, *options)
            if self.deforms:
                self.judge_warp = patch_discriminator(dims, pair, *options)
        extra = {"ncc": {"window": config.similarity_window}, "nmi": {"bins": config.similarity_bins}}
        self.align = make_similarity(config.similarity, **extra.get(config.similarity, {}))
        self.cross = make_similarity("nmi", bins=config.cross_bins)

    def streams(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Translated image (B, C, *spatial) and velocity (B, D, *spatial) in voxels, or None."""
        features = self.encoder(source)
        velocity = None
        if self.deforms:
            velocity = self.velocity(self.deformation(features), source.shape[2:])
        return self.translation(features), velocity

    def warped(self, source: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """Source carried by exp(velocity), with as many channels as the target, (B, C, *spatial)."""
        return self.shown(kernels.warp(source, kernels.exp(velocity, self.config.squarings)))

    def shown(self, source: torch.Tensor) -> torch.Tensor:
        """What of a source is compared with the target: itself, or its chosen channel for each of the target's."""
        if source.shape[1] == self.target_channels:
            return source
        channel = self.config.compared_channel
        return source[:, channel : channel + 1].expand(-1, self.target_channels, *source.shape[2:])

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        image, velocity = self.streams(batch["source"])
        if velocity is None:
            return Prediction(image)
        steps = self.config.squarings
        return Prediction(image, kernels.exp(velocity, steps), kernels.exp(-velocity, steps))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        judges = [p for n, p in self.named_parameters() if n.startswith("judge_")]
        makers = [p for n, p in self.named_parameters() if not n.startswith("judge_")]
        betas = (self.config.beta1, 0.999)
        found = [torch.optim.Adam(makers, lr=self.config.learning_rate, betas=betas)]
        if judges:
            rate = self.config.discriminator_learning_rate or self.config.learning_rate
            found.append(torch.optim.Adam(judges, lr=rate, betas=betas))
        return found

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        source, target = batch["source"], batch["target"]
        # The published script shows the warp's discriminator the registered source where there is one.
        real_warp = self.shown(batch["registered"]) if "registered" in batch else target
        image, velocity = self.streams(source)
        warped = None if velocity is None else self.warped(source, velocity)
        judges = [self.judge_translation] if self.adversarial else []
        if self.adversarial and warped is not None:
            judges.append(self.judge_warp)

        with frozen(judges):
            terms = self._generator_terms(source, target, image, velocity, warped)
            loss = self._total(terms)
            optimizers[0].zero_grad()
            backward(loss)
            optimizers[0].step()
        report = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

        if judges:
            parts = [_judge_loss(self.judge_translation, source, target, image.detach())]
            if warped is not None:
                parts.append(_judge_loss(self.judge_warp, source, real_warp, warped.detach()))
            optimizers[1].zero_grad()
            backward(torch.stack(parts).sum())
            optimizers[1].step()
            report["discriminator"] = torch.stack(parts).mean().detach()
        return report

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        image, velocity = self.streams(batch["source"])
        report = {"l1": (image - batch["target"]).abs().mean()}
        if velocity is not None:
            within = self._within(batch["source"], batch["target"])
            report["align"] = self.align(self.warped(batch["source"], velocity), batch["target"], within)
        return report

    def _generator_terms(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        image: torch.Tensor,
        velocity: torch.Tensor | None,
        warped: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        terms = {"l1": (image - target).abs().mean()}
        if self.adversarial:
            terms["adversarial"] = lsgan_generator(_score(self.judge_translation, source, image))
        if velocity is None or warped is None:
            return terms
        terms["align"] = self.align(warped, target, self._within(source, target))
        terms["smooth"] = gradient_energy(velocity)
        if self.config.deform_l1 > 0:
            terms["deform_l1"] = (warped - target).abs().mean()
        if self.adversarial:
            terms["adversarial_warp"] = lsgan_generator(_score(self.judge_warp, source, warped))
        if self.config.gamma > 0:
            terms["cross"] = self.cross(image, warped if self.config.cross_to == "both" else warped.detach())
        return terms

    def _within(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
        """Mask (B, 1, *spatial) of where the deformation stream compares; None for everywhere."""
        if self.config.align_within == "image":
            return None
        brighter = torch.cat([source, target], dim=1).amax(dim=1, keepdim=True)
        mean, most = (F.avg_pool2d, F.max_pool2d) if source.ndim == 4 else (F.avg_pool3d, F.max_pool3d)
        window = self.config.similarity_window
        # The mean of a window, so that noise over the background does not count.
        above = mean(brighter, window, stride=1, padding=window // 2, count_include_pad=False) > -0.8
        return most(above.to(source.dtype), window, stride=1, padding=window // 2)

    def _total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        c = self.config
        share = c.alpha if self.deforms else 1.0
        weights = {
            "l1": share,
            "adversarial": share * c.adversarial,
            "align": 1 - share,
            "deform_l1": (1 - share) * c.deform_l1,
            "adversarial_warp": (1 - share) * c.adversarial,
            "smooth": (1 - share) * c.smoothness,
            "cross": c.gamma,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _score(judge: nn.Module, source: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return judge(torch.cat([source, image], dim=1))[-1]


def _judge_loss(judge: nn.Module, source: torch.Tensor, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return lsgan_discriminator(_score(judge, source, real), _score(judge, source, fake))
