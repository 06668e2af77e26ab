"""What a method offers: networks, its optimisers, one training step, inference on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn


class Prediction(NamedTuple):
    """Result of a batch: image (B, C, *spatial) in [-1, 1], displacement and inverse (B, D, *spatial).

    Fields are in voxels of the batch's lattice; None for a method that has none of its own.
    """

    image: torch.Tensor
    displacement: torch.Tensor | None
    inverse: torch.Tensor | None


class Method(nn.Module):
    """Base of every method. It knows tensors on one lattice, nothing of files, grids or millimetres.

    ``config_class`` is a frozen dataclass: at once the method's options on the command line, its YAML
    and what is written beside the weights. Constructor: ``(config, dims, source_channels,
    target_channels)``. Spatial sizes it is given are divisible by ``multiple``.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    config: Any
    multiple: int = 1

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Fresh optimisers, in the order in which ``training_step`` gets them."""
        raise NotImplementedError

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """One update of every optimiser; returns named scalars, ``loss`` among them.

        ``batch`` holds ``source`` and ``target`` (B, C, *spatial) in [-1, 1], ``registered`` where the
        table has it. All randomness comes from ``generator``.
        """
        raise NotImplementedError

    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Named scalars of a held-out batch, lower is better."""
        raise NotImplementedError

    def infer(self, source: torch.Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Prediction of a batch of sources (B, C, *spatial) in [-1, 1]."""
        raise NotImplementedError


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Without gradients of these modules' weights, so that a generator's step does not pay for them."""
    modules = list(modules)
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)
