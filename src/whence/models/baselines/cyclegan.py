"""CycleGAN: unpaired translation both ways (Zhu et al. 2017), as IMSE's tables compare with.

L_G = (D_y(G x) - 1)^2 + (D_x(F y) - 1)^2 + c (|F G x - x|_1 + |G F y - y|_1) + i (|G y - y|_1 + |F x - x|_1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from whence.losses import lsgan_discriminator, lsgan_generator
from whence.models.method import Method, Prediction, frozen
from whence.nets import ResNetGenerator, patch_discriminator


@dataclass(frozen=True)
class CycleGANConfig:
    """Options of CycleGAN; the defaults are the usual ones.

    Args:
        filters: channels of the generators' first convolution.
        blocks: residual blocks of the generators.
        cycle: weight of the cycle terms.
        identity: weight of the identity terms.
        discriminator_filters: first filters of the PatchGANs.
        discriminator_layers: strided layers of the PatchGANs.
        learning_rate: of all optimisers.
        beta1: first beta of Adam.
    """

    filters: int = 64
    blocks: int = 9
    cycle: float = 10.0
    identity: float = 5.0
    discriminator_filters: int = 64
    discriminator_layers: int = 3
    learning_rate: float = 2e-4
    beta1: float = 0.5


class CycleGAN(Method):
    """Translator of one modality into another, learnt without pairs; its trace is recovered by registration."""

    name: ClassVar[str] = "cyclegan"
    config_class: ClassVar[type] = CycleGANConfig
    optional: ClassVar[tuple[str, ...]] = ()
    unpaired: ClassVar[bool] = True
    # Prediction and source are of two modalities.
    recovered_by: ClassVar[str] = "mind"
    multiple = 4

    def __init__(self, config: CycleGANConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        self.config = config
        size, judge = (config.filters, config.blocks), (config.discriminator_filters, config.discriminator_layers)
        self.forth = ResNetGenerator(dims, source_channels, target_channels, *size)
        self.back = ResNetGenerator(dims, target_channels, source_channels, *size)
        self.judge_source = patch_discriminator(dims, source_channels, *judge)
        self.judge_target = patch_discriminator(dims, target_channels, *judge)

    def translate(self, source: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The source in the target's modality; the reference is not looked at."""
        return self.forth(source)

    def spatial_error(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Half of what differs between fixed and the translated moving image, of the source's modality."""
        return (fixed - self.forth(moving)) / 2

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        return Prediction(self.forth(batch["source"]))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        makers = [*self.forth.parameters(), *self.back.parameters()]
        judges = [*self.judge_source.parameters(), *self.judge_target.parameters()]
        return [torch.optim.Adam(part, lr=rate, betas=betas) for part in (makers, judges)]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        # Another head's target for each source: the pairs are not to be used.
        x, y = batch["source"], batch["target"].roll(1, 0)
        c = self.config
        there, here = self.forth(x), self.back(y)
        with frozen([self.judge_source, self.judge_target]):
            terms = {
                "adversarial": lsgan_generator(self.judge_target(there)[-1])
                + lsgan_generator(self.judge_source(here)[-1]),
                "cycle": F.l1_loss(self.back(there), x) + F.l1_loss(self.forth(here), y),
            }
            loss = terms["adversarial"] + c.cycle * terms["cycle"]
            if c.identity > 0 and x.shape[1] == y.shape[1]:
                terms["identity"] = F.l1_loss(self.forth(y), y) + F.l1_loss(self.back(x), x)
                loss = loss + c.identity * terms["identity"]
            optimizers[0].zero_grad()
            backward(loss)
            optimizers[0].step()
        judged = lsgan_discriminator(self.judge_target(y)[-1], self.judge_target(there.detach())[-1])
        judged = judged + lsgan_discriminator(self.judge_source(x)[-1], self.judge_source(here.detach())[-1])
        optimizers[1].zero_grad()
        backward(judged)
        optimizers[1].step()
        report = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss.detach(), **report, "discriminator": judged.detach()}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"cycle": F.l1_loss(self.back(self.forth(batch["source"])), batch["source"])}
