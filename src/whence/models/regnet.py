"""RegNet: amortised registration, a network that answers with the field between two images at once.

As IMSE's document trains it: both directions, a similarity and the smoothness of the field,

    L = (sim(x o exp(v), y) + sim(y o exp(-v), x)) / 2 + s |grad v|^2,   v = R(x, y)

with any similarity, a trained evaluator's among them; the document has the sum of both directions, of which the
mean keeps s comparable with that of a single one. U-Net after VoxelMorph (Balakrishnan et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from whence import kernels
from whence.data.frame import Frame
from whence.errors import InputError
from whence.losses import SIMILARITIES, Similarity, both_ways, make_similarity
from whence.models.evaluator import evaluator_similarity
from whence.models.method import Method, Prediction
from whence.nets import RegistrationUNet, VelocityHead


@dataclass(frozen=True)
class RegNetConfig:
    """Options of the registration network; the defaults are the published setting where the document names one.

    Args:
        similarity: what the images are compared by: ncc, nmi, mi, mind, mse, or the folder of a run that
            estimates spatial error.
        similarity_window: window of ncc, voxels.
        similarity_bins: histogram bins of mi and nmi.
        translator: folder of a run that gives the source the target's appearance before they are compared;
            none if empty.
        smoothness: weight of the velocity's gradient energy.
        down: features of the U-Net from full resolution down.
        up: features on the way back.
        squarings: steps of scaling and squaring.
        learning_rate: of Adam.
    """

    similarity: str = "ncc"
    similarity_window: int = 9
    similarity_bins: int = 32
    translator: str = ""
    smoothness: float = 1.0
    down: tuple[int, ...] = (16, 32, 32, 32, 32)
    up: tuple[int, ...] = (32, 32, 32, 32, 16, 16)
    squarings: int = 7
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "down", tuple(self.down))
        object.__setattr__(self, "up", tuple(self.up))
        if not (0 <= self.smoothness < 1e6 and 0 <= self.squarings <= 16):
            raise ValueError(f"smoothness is not negative, squarings 0 to 16; got {self.smoothness}, {self.squarings}")


class RegNet(Method):
    """Registration of a source to a target by one pass of a network; the prediction is the source, moved."""

    name: ClassVar[str] = "regnet"
    config_class: ClassVar[type] = RegNetConfig
    optional: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(self, config: RegNetConfig, dims: int, source_channels: int, target_channels: int) -> None:
        super().__init__()
        if source_channels != target_channels:
            raise ValueError(f"images of as many channels are registered; got {source_channels} and {target_channels}")
        self.config, self.dims, self.channels = config, dims, source_channels
        self.net = RegistrationUNet(dims, source_channels + target_channels, config.down, config.up)
        self.head = VelocityHead(dims, config.up[-1])
        self.multiple = self.net.multiple
        self._compare: Similarity | None = None
        self._shown: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def bind(self, load: Callable[[str], Any], frame: Frame | None = None) -> None:
        name = self.config.similarity
        if name in SIMILARITIES:
            windows = {"ncc": {"window": self.config.similarity_window}}
            bins = {key: {"bins": self.config.similarity_bins} for key in ("mi", "nmi")}
            try:
                self._compare = make_similarity(name, **(windows | bins).get(name, {}))
            except ValueError as error:
                raise InputError(str(error)) from error
        else:
            try:
                evaluator = load(name)
                self._compare = evaluator_similarity(evaluator)
            except InputError as error:
                known = ", ".join(SIMILARITIES)
                raise InputError(f"similarity {name!r} is none of {known} and no run to compare by: {error}") from error
            self._check(name, evaluator)
            if "target" in evaluator.method.columns:
                raise InputError(
                    f"{name} is a run of {evaluator.method.name!r}, which compares a source with a target alone; "
                    "expected one for both directions"
                )
        if self.config.translator:
            found = load(self.config.translator)
            translator = found.method.eval().requires_grad_(False)
            if not hasattr(translator, "translate"):
                raise InputError(f"{self.config.translator} is a run of {translator.name!r}, which translates no image")
            self._check(self.config.translator, found)
            self._shown = lambda source, target: translator.to(source.device).translate(source, target)

    def _check(self, name: str, run: Any) -> None:
        """Raise InputError where a run sees other images than this network."""
        found, own = (run.frame.dims, run.frame.source_channels), (self.dims, self.channels)
        if found != own:
            raise InputError(
                f"{name} sees {found[0]}D images of {found[1]} channel(s); expected {own[0]}D ones of {own[1]}"
            )

    def velocity(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Stationary velocity (B, D, *spatial) in voxels whose exponential carries the source onto the target."""
        return self.head(self.net(torch.cat([source, target], dim=1)), source.shape[2:])

    @torch.no_grad()
    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        velocity = self.velocity(batch["source"], batch["target"])
        forward = kernels.exp(velocity, self.config.squarings)
        backward = kernels.exp(-velocity, self.config.squarings)
        return Prediction(kernels.warp(batch["source"], forward), forward, backward)

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
        terms = self._terms(batch)
        loss = terms["similarity"] + self.config.smoothness * terms["smooth"]
        optimizers[0].zero_grad()
        backward(loss)
        optimizers[0].step()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self._terms(batch)

    def _terms(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        compare = self._compare
        if compare is None:
            raise ValueError("a registration network is trained after `bind` has given it its similarity")
        source, target = batch["source"], batch["target"]
        velocity, shown = self.velocity(source, target), source
        if self._shown is not None:
            with torch.no_grad():
                shown = self._shown(source, target)
        return both_ways(velocity, shown, target, compare, self.config.squarings)
