"""IMSE: a network that sees how far apart two images of different modalities lie, trained on one modality alone.

Document: Indescribable Multi-modal Spatial Evaluator (IMSE).

    x1 = x o T1,  x2 = x o T2                                 two random spatial transforms of one image
    min_E  | E(remap(x1), x2) - (x2 - x1) / 2 |_1             remap: Shuffle Remap of the intensities
    spatial error of a pair     mean |E(image, reference)|,   the reference of the modality E was trained on
    translation                 reference - 2 E(source, reference), clamped to [-1, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from whence import kernels
from whence.data.frame import fit_shape, unfit_shape, up_to_multiple
from whence.data.perturbation import Perturbation
from whence.models.method import Method, Prediction
from whence.models.remap import bezier_remap, conditional_mean, shuffle_remap
from whence.nets import Decoder, Encoder, ResNetGenerator
from whence.nets.pyramid import CONV

QUANTILES = 65
# Share of the old in the running mean of the training images' quantiles.
MEMORY = 0.95


@dataclass(frozen=True)
class IMSEConfig:
    """Options of IMSE; the defaults are the published setting where the document names one.

    Args:
        network: resnet as published, or unet, which learns in a fraction of the steps.
        filters: channels of the resnet's first convolution.
        blocks: its residual blocks.
        features: channels of the unet, from full resolution down.
        conditional: show the network the image in the contrast that the reference has where they overlap
            (its conditional mean), and let it correct the difference that follows from that.
        approach: bring the two transforms of each sample nearer to each other by a random share, so that pairs that
            are almost aligned are seen as well.
        remap: how the first image's intensities are changed: shuffle (Shuffle Remap), bezier, or none.
        least_points: least number of Shuffle Remap's control points.
        most_points: largest number of them.
        remap_reference: share of the samples whose second image is remapped as well, so that the
            reference may be of any modality; 0 as published.
        rotation: largest rotation of the random transforms, degrees.
        translation: their largest shift, in coordinates that run from -1 to 1 over the image.
        scaling: their largest change of scale.
        elastic: amplitude of the elastic noise at 240 pixels a side, before its Gaussian.
        elastic_sigma: sigma of that Gaussian at 240 pixels a side.
        learning_rate: of Adam.
        beta1: first beta of Adam.
    """

    network: Literal["resnet", "unet"] = "resnet"
    filters: int = 64
    blocks: int = 9
    features: tuple[int, ...] = (16, 32, 64, 64)
    conditional: bool = False
    approach: bool = False
    remap: Literal["shuffle", "bezier", "none"] = "shuffle"
    least_points: int = 2
    most_points: int = 20
    remap_reference: float = 0.0
    rotation: float = 3.0
    translation: float = 0.08
    scaling: float = 0.08
    elastic: float = 120.0
    elastic_sigma: float = 12.0
    learning_rate: float = 1e-4
    beta1: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if min(self.filters, self.blocks, *self.features) < 1 or not self.features:
            raise ValueError(
                f"filters, blocks and features are at least 1; got {self.filters}, {self.blocks}, {self.features}"
            )
        if not 1 <= self.least_points <= self.most_points:
            raise ValueError(
                f"expected 1 <= least_points <= most_points; got {self.least_points} and {self.most_points}"
            )
        if not 0 <= self.remap_reference <= 1:
            raise ValueError(f"remap_reference is a share, 0 to 1; got {self.remap_reference}")
        self.perturbation  # noqa: B018 - refuses what is out of range

    @property
    def perturbation(self) -> Perturbation:
        """The random transforms that these options describe."""
        return Perturbation(self.rotation, self.translation, self.scaling, self.elastic, self.elastic_sigma)


class IMSE(Method):
    """Evaluator of spatial error between modalities, trained on the sources of a table alone."""

    name: ClassVar[str] = "imse"
    config_class: ClassVar[type] = IMSEConfig
    columns: ClassVar[tuple[str, ...]] = ("source",)
    optional: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(self, config: IMSEConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        self.config = config
        self.channels = source_channels
        shown = source_channels * (3 if config.conditional else 2)
        if config.network == "resnet":
            net = ResNetGenerator(dims, shown, source_channels, config.filters, config.blocks)
            self.net, last, self.multiple = net, net.leave, net.multiple
        else:
            encoder = Encoder(dims, shown, config.features)
            last = CONV[dims](config.features[0], source_channels, 3, padding=1)
            self.net = nn.Sequential(encoder, Decoder(dims, config.features), last, nn.Tanh())
            self.multiple = encoder.multiple
        if config.conditional:
            # Training starts from what the conditional mean says.
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)
        # What the training images' intensities look like, by which a pair's reference is told.
        self.register_buffer("appearance", torch.zeros(source_channels, QUANTILES))
        self.register_buffer("seen", torch.zeros(()))

    def difference(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """E: half of reference minus image, as if the image were of the reference's modality; (B, C, *spatial)."""
        shape = tuple(image.shape[2:])
        # Padded as training images are, before anything is computed of them.
        image, reference = (fit_shape(x, up_to_multiple(shape, self.multiple)) for x in (image, reference))
        if not self.config.conditional:
            return unfit_shape(self.net(torch.cat([image, reference], dim=1)), shape)
        first = (reference - conditional_mean(image, reference)) / 2
        found = first + self.net(torch.cat([image, reference, first], dim=1))
        return unfit_shape(found, shape).clamp(-1, 1)

    def spatial_error(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Signed spatial error (B, C, *spatial) of a pair on one lattice, in half of the range [-1, 1].

        The image that looks more like those of the training is the reference, the other may be of any
        modality; where neither does more, the fixed one is.
        """
        if self.knows(moving) < self.knows(fixed):
            return -self.difference(fixed, moving)
        return self.difference(moving, fixed)

    def translate(self, source: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The reference's appearance on the source's geometry, (B, C, *spatial) in [-1, 1]."""
        return (reference - 2 * self.difference(source, reference)).clamp(-1, 1)

    def knows(self, image: torch.Tensor) -> float:
        """How far the quantiles of images lie from those of the training; 0 for the same."""
        return float((_quantiles(image.detach()) - self.appearance).abs().mean())

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        source, target = batch["source"], batch["target"]
        error = self.spatial_error(source, target).abs()
        still = source.new_zeros((source.shape[0], source.ndim - 2, *source.shape[2:]))
        return Prediction(self.translate(source, target), still, still, extras={"spatial error": error})

    def optimizers(self) -> list[torch.optim.Optimizer]:
        betas = (self.config.beta1, 0.999)
        return [torch.optim.Adam(self.net.parameters(), lr=self.config.learning_rate, betas=betas)]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        self._remember(batch["source"])
        loss = self._loss(batch["source"], generator)
        optimizers[0].zero_grad()
        backward(loss)
        optimizers[0].step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"l1": self._loss(batch["source"], generator)}

    def _loss(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shape = tuple(image.shape[2:])
        draw = self.config.perturbation.draw
        one, two = (draw(len(image), shape, generator) for _ in range(2))
        if self.config.approach:
            share = torch.rand((len(image), *[1] * (image.ndim - 1)), generator=generator)
            one = torch.lerp(two, one, share)
        first, second = (kernels.warp(image, field.to(image)) for field in (one, two))
        shown = self._remapped(first, generator)
        if self.config.remap_reference > 0:
            # The same map for both images of the difference, so that it stays one of place alone.
            both = self._remapped(torch.cat([first, second], dim=2), generator)
            turn = torch.rand(len(image), generator=generator) < self.config.remap_reference
            turn = turn.reshape(-1, *[1] * (image.ndim - 1)).to(image.device)
            one, two = both.chunk(2, dim=2)
            first, second = torch.where(turn, one, first), torch.where(turn, two, second)
        return F.l1_loss(self.difference(shown, second), (second - first) / 2)

    def _remapped(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.config.remap == "shuffle":
            return shuffle_remap(image, generator, (self.config.least_points, self.config.most_points))
        return bezier_remap(image, generator) if self.config.remap == "bezier" else image

    @torch.no_grad()
    def _remember(self, image: torch.Tensor) -> None:
        memory = MEMORY * self.seen
        self.appearance.lerp_(_quantiles(image).to(self.appearance), 1 - memory)
        self.seen.fill_(1)


def _quantiles(image: torch.Tensor) -> torch.Tensor:
    """Evenly spaced quantiles of each channel over a batch, (C, QUANTILES)."""
    flat = image.movedim(1, 0).flatten(1).float().sort(dim=1).values
    places = torch.linspace(0, flat.shape[1] - 1, QUANTILES, device=image.device).round().long()
    return flat[:, places]
