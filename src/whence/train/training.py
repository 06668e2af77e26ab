"""A method as Lightning runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from whence.data.augment import Augmentation
from whence.errors import InputError
from whence.models import Method
from whence.models.method import stage_at
from whence.train.settings import TrainConfig
from whence.train.stream import StepSampler, step_generator


class Training(L.LightningModule):
    """Manual optimisation of any method. A Lightning epoch is the stretch between two checkpoints.

    All that a step depends on, its batch, augmentation, learning rate and noise, follows from the
    step's number, so that a run resumed at the end of any stretch ends where an unbroken one does.
    """

    def __init__(self, method: Method, settings: TrainConfig, flip: bool = True) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.settings = settings
        none = Augmentation(False, 0.0, 0.0)
        self.augment = Augmentation(flip, settings.gamma_range, settings.noise) if method.augmented else none

    @property
    def first_step(self) -> int:
        """Number of the first step of the current stretch."""
        return self.current_epoch * self.settings.save_every

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return self.method.optimizers()

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        step = self.first_step + batch_idx
        generator = step_generator(self.settings.seed, step, self.global_rank + 1)
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        factor = rate_factor(self.settings, step, self.method.stages(self.method.config))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        batch = self.augment(batch, generator)
        try:
            report = self.method.training_step(batch, optimizers, self.manual_backward, generator, step)
        except (RuntimeError, ValueError) as error:
            if self._diverged(batch):
                raise FloatingPointError(f"the network's output is no longer finite at step {step}") from error
            if "spatial" in str(error) or "Kernel size" in str(error):
                shape = "x".join(map(str, batch["source"].shape[2:]))
                raise InputError(f"images of {shape} voxels are too small for these networks: {error}") from error
            raise
        if not bool(torch.isfinite(report["loss"])):
            raise FloatingPointError(f"the loss is {float(report['loss'])} at step {step}")
        return report

    def _diverged(self, batch: dict[str, torch.Tensor]) -> bool:
        if not batch.keys() >= set(self.method.inputs):
            return False
        with suppress(RuntimeError, ValueError), torch.no_grad():
            answer = self.method.infer(batch, torch.Generator().manual_seed(0))
            return not all(bool(torch.isfinite(part).all()) for part in answer[:3] if part is not None)
        return False

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        return self.method.validation_step(batch, step_generator(self.settings.seed, batch_idx))


class Stretches(L.LightningDataModule):
    """The data of one stretch at a time."""

    def __init__(self, train: Dataset, held_out: Dataset | None, settings: TrainConfig) -> None:
        super().__init__()
        self.train_data, self.held_out, self.settings = train, held_out, settings

    def train_dataloader(self) -> DataLoader:
        trainer: Any = self.trainer
        start = trainer.current_epoch * self.settings.save_every
        sampler = StepSampler(
            len(self.train_data),  # type: ignore[arg-type]
            self.settings.batch_size,
            self.settings.seed,
            start,
            min(start + self.settings.save_every, self.settings.steps),
            trainer.global_rank,
            trainer.world_size,
        )
        return DataLoader(self.train_data, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader | list:
        if self.held_out is None or not self.settings.validation_samples:
            return []
        count = min(self.settings.validation_samples, len(self.held_out))  # type: ignore[arg-type]
        return DataLoader(torch.utils.data.Subset(self.held_out, range(count)), batch_size=self.settings.batch_size)


def rate_factor(settings: TrainConfig, step: int, stages: Sequence[int] = ()) -> float:
    """Share of the learning rate at a step; of a method that learns in ``stages`` each has its own rise and fall."""
    ends, stage = [0, *accumulate(stages), settings.steps], stage_at(step, stages)
    first, last = ends[stage], ends[stage + 1]
    done = (step - first) / (last - first)
    if settings.schedule == "linear":
        return min(1.0, 2 * (1 - done))
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
