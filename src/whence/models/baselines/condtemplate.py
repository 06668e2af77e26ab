"""Conditional templates: a network draws the template of a condition, another registers it to people.

Paper: Learning Conditional Deformable Templates with Convolutional Networks (Dalca et al., NeurIPS 2019).

    T_c = A + G(A, c)
    L   = sim(T_c o exp(v), x) + s |grad v|^2 + m |mean_B u|^2 + d |u|^2,   v = R(T_c, x),  u = exp(v) - id

Ours: G sees the general atlas A and the conditions as channels, where the paper decodes them from a vector alone. What
it draws has no field; one is found by registering it to the general atlas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from whence import kernels
from whence.losses import gradient_energy, make_similarity
from whence.models.attributes import Attributes
from whence.models.method import Method, Prediction
from whence.nets import RegistrationUNet, VelocityHead
from whence.nets.pyramid import CONV
from whence.nets.tokens import AttributeTokens


@dataclass(frozen=True)
class ConditionalTemplateConfig:
    """Options of conditional templates.

    Args:
        conditions: columns of the table that a template is asked for by.
        width: channels in which the conditions are told.
        down: features of both U-Nets from full resolution down.
        up: features on the way back.
        similarity_window: window of the local correlation, voxels.
        smoothness: weight of the velocity's gradient energy.
        mean: weight of the squared mean displacement of a batch.
        deviation: weight of the squared displacement.
        squarings: steps of scaling and squaring.
        learning_rate: of Adam.
    """

    conditions: tuple[str, ...] = ("age",)
    width: int = 16
    down: tuple[int, ...] = (16, 32, 32, 32)
    up: tuple[int, ...] = (32, 32, 32, 16, 16)
    similarity_window: int = 9
    smoothness: float = 0.5
    mean: float = 1.0
    deviation: float = 0.01
    squarings: int = 7
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("conditions", "down", "up"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.conditions:
            raise ValueError("conditions are names of columns; got none")
        weights = (self.smoothness, self.mean, self.deviation)
        if min(weights) < 0 or not 1 <= self.width <= 4096 or not 0 <= self.squarings <= 16:
            raise ValueError(f"weights are not negative, width 1 to 4096, squarings 0 to 16; got {self}")
        if self.similarity_window < 3 or self.similarity_window % 2 == 0:
            raise ValueError(f"similarity_window is odd, 3 or more; got {self.similarity_window}")


class ConditionalTemplate(Method):
    """The template of a condition as an image; the source is the general atlas, targets are people."""

    name: ClassVar[str] = "condtemplate"
    config_class: ClassVar[type] = ConditionalTemplateConfig
    optional: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: ConditionalTemplateConfig,
        dims: int,
        source_channels: int,
        target_channels: int,
        attributes: Attributes,
    ) -> None:
        super().__init__()
        if source_channels != target_channels:
            raise ValueError(f"templates look as people do; got {source_channels} and {target_channels} channels")
        self.config, self.dims, self.attributes = config, dims, attributes
        self.tokens = AttributeTokens(attributes.kinds, config.width)
        self.generator = RegistrationUNet(dims, source_channels + config.width, config.down, config.up)
        self.drawn = CONV[dims](config.up[-1], source_channels, 3, padding=1)
        nn.init.normal_(self.drawn.weight, std=1e-3)
        nn.init.zeros_(self.drawn.bias)
        self.registration = RegistrationUNet(dims, 2 * source_channels, config.down, config.up)
        self.moved = VelocityHead(dims, config.up[-1])
        self.multiple = self.registration.multiple

    @classmethod
    def conditions(cls, config: ConditionalTemplateConfig) -> tuple[str, ...]:
        return config.conditions

    def template(self, atlas: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Templates (B, C, *spatial) of conditions (B, K)."""
        told = self.tokens(conditions).mean(dim=1)
        told = told.reshape(*told.shape, *[1] * self.dims).expand(-1, -1, *atlas.shape[2:])
        return atlas + self.drawn(self.generator(torch.cat([atlas, told], dim=1)))

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        return Prediction(self.template(batch["source"], batch["conditions"]).clamp(-1, 1))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.parameters(), lr=self.config.learning_rate)]

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, Any]:
        terms, c = self._terms(batch), self.config
        weights = {"similarity": 1.0, "smooth": c.smoothness, "mean": c.mean, "deviation": c.deviation}
        loss = sum(weight * terms[name] for name, weight in weights.items())
        optimizers[0].zero_grad()
        backward(loss)
        optimizers[0].step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._terms(batch)

    def _terms(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        template, people = self.template(batch["source"], batch["conditions"]), batch["target"]
        features = self.registration(torch.cat([template, people], dim=1))
        velocity = self.moved(features, people.shape[2:])
        field = kernels.exp(velocity, self.config.squarings)
        compare = make_similarity("ncc", window=self.config.similarity_window)
        return {
            "similarity": compare(kernels.warp(template, field), people),
            "smooth": gradient_energy(velocity),
            "mean": field.mean(dim=0).square().sum(dim=0).mean(),
            "deviation": field.square().sum(dim=1).mean(),
        }
