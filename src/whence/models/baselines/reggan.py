"""RegGAN: a translator trained with a registration network that corrects its pairs (Kong et al. 2021).

    min_{G, R} c |G(x) o exp(v) - y|_1 + s |grad v|^2 + (D(G x) - 1)^2,   v = R(G(x), y)

Pairs that are not aligned count as noise that R takes out, so that G keeps the source's geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from whence import kernels
from whence.losses import gradient_energy, lsgan_discriminator, lsgan_generator
from whence.models.method import Method, Prediction, frozen
from whence.nets import RegistrationUNet, ResNetGenerator, VelocityHead, patch_discriminator


@dataclass(frozen=True)
class RegGANConfig:
    """Options of RegGAN; the weights are the usual ones.

    Args:
        filters: channels of the generator's first convolution.
        blocks: residual blocks of the generator.
        correction: weight of the corrected L1.
        smoothness: weight of the velocity's gradient energy.
        adversarial: weight of the adversarial term; 0 trains no discriminator.
        down: features of the registration network from full resolution down.
        up: features on the way back.
        squarings: steps of scaling and squaring.
        discriminator_filters: first filters of the PatchGAN.
        discriminator_layers: strided layers of the PatchGAN.
        learning_rate: of all optimisers.
        beta1: first beta of Adam.
    """

    filters: int = 64
    blocks: int = 9
    correction: float = 20.0
    smoothness: float = 10.0
    adversarial: float = 1.0
    down: tuple[int, ...] = (16, 32, 32, 32, 32)
    up: tuple[int, ...] = (32, 32, 32, 32, 16, 16)
    squarings: int = 7
    discriminator_filters: int = 64
    discriminator_layers: int = 3
    learning_rate: float = 1e-4
    beta1: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "down", tuple(self.down))
        object.__setattr__(self, "up", tuple(self.up))


class RegGAN(Method):
    """Translator and registration network; the prediction is the translated source, moved onto the target."""

    name: ClassVar[str] = "reggan"
    config_class: ClassVar[type] = RegGANConfig
    optional: ClassVar[tuple[str, ...]] = ()
    unpaired: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(self, config: RegGANConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        self.config = config
        self.translator = ResNetGenerator(dims, source_channels, target_channels, config.filters, config.blocks)
        self.registration = RegistrationUNet(dims, 2 * target_channels, config.down, config.up)
        self.head = VelocityHead(dims, config.up[-1])
        self.multiple = max(self.registration.multiple, self.translator.multiple)
        if config.adversarial > 0:
            options = (config.discriminator_filters, config.discriminator_layers)
            self.judge = patch_discriminator(dims, target_channels, *options)

    def translate(self, source: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The source in the target's modality, in its place; the reference is not looked at."""
        return self.translator(source)

    def spatial_error(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Half of what differs between fixed and the translated moving image, of the source's modality."""
        return (fixed - self.translator(moving)) / 2

    def velocity(self, translated: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Stationary velocity (B, D, *spatial) in voxels that carries the translated source onto the target."""
        return self.head(self.registration(torch.cat([translated, target], dim=1)), target.shape[2:])

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        translated = self.translator(batch["source"])
        velocity = self.velocity(translated, batch["target"])
        forward = kernels.exp(velocity, self.config.squarings)
        backward = kernels.exp(-velocity, self.config.squarings)
        return Prediction(kernels.warp(translated, forward), forward, backward, images={"translated": translated})

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        parts = [[*self.translator.parameters(), *self.registration.parameters(), *self.head.parameters()]]
        if self.config.adversarial > 0:
            parts.append(list(self.judge.parameters()))
        return [torch.optim.Adam(part, lr=rate, betas=betas) for part in parts]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        c = self.config
        translated, terms = self._terms(batch)
        loss = c.correction * terms["correction"] + c.smoothness * terms["smooth"]
        judges = [self.judge] if c.adversarial > 0 else []
        with frozen(judges):
            if judges:
                terms["adversarial"] = lsgan_generator(self.judge(translated)[-1])
                loss = loss + c.adversarial * terms["adversarial"]
            optimizers[0].zero_grad()
            backward(loss)
            optimizers[0].step()
        report = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        if judges:
            judged = lsgan_discriminator(self.judge(batch["target"])[-1], self.judge(translated.detach())[-1])
            optimizers[1].zero_grad()
            backward(judged)
            optimizers[1].step()
            report["discriminator"] = judged.detach()
        return report

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._terms(batch)[1]

    def _terms(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        translated, target = self.translator(batch["source"]), batch["target"]
        velocity = self.velocity(translated, target)
        warped = kernels.warp(translated, kernels.exp(velocity, self.config.squarings))
        return translated, {"correction": F.l1_loss(warped, target), "smooth": gradient_energy(velocity)}
