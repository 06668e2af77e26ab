"""Batches as a function of the step alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """Generator of everything random in one step."""
    mixed = (seed * 1_000_003 + step) * 1_000_003 + rank
    return torch.Generator().manual_seed(mixed % (2**63))


class StepSampler(Sampler[list[int]]):
    """Index batches of steps ``start`` to ``stop``: shuffled epochs joined end to end.

    With several processes, each takes its own part of every step's batch.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = torch.randperm(self.count, generator=step_generator(self.seed, epoch))
                batch.append(int(order[position % self.count]))
            yield batch
