"""Samples with their neighbours: images of people whose attributes are like theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.data import Dataset

from whence.data.dataset import PairDataset
from whence.errors import InputError

# Samples of each person, with other neighbours each time.
LAPS = 64
Nearness = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class NeighbourDataset(Dataset):
    """Samples, each with ``count`` images of people drawn from ``pool`` by how near they are to its attributes.

    ``nearness`` gives weights (n,) of people's attributes (n, K) for those asked for (K,). In a share ``dropped`` of
    cases an attribute is taken for unknown, for the sample and its neighbours alike. A sample is what the person's
    holds, its ``conditions`` (K,), ``near_target`` (count * C, *shape) and ``near_index`` (count,), their places in
    the pool; the person may be among the neighbours.
    Sample ``k`` is the same at each call, so that a resumed run sees what it would have seen. Raises InputError where
    the people are slices of several levels: what an attribute means at one says nothing of another.
    """

    def __init__(
        self, people: PairDataset, pool: PairDataset, count: int, nearness: Nearness, dropped: float, seed: int = 0
    ) -> None:
        self.people, self.pool, self.frame = people, pool, people.frame
        self.count, self.nearness, self.dropped, self.seed = count, nearness, dropped, seed
        self.attributes = torch.stack([sample["conditions"] for sample in pool.samples])
        levels = set(pool.slices)
        if len(levels) > 1:
            raise InputError(
                f"people are compared with those of like conditions; got slices of {len(levels)} levels of volumes, "
                "expected whole volumes, without --plane, or the same slice of everybody"
            )

    def __len__(self) -> int:
        return LAPS * len(self.people)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        lap, place = divmod(index, len(self.people))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + lap * 7919 + place * 104_729 + 17) % (2**63))
        sample = self.people[place]
        asked = sample["conditions"]
        unknown = torch.rand(len(asked), generator=generator) < self.dropped
        asked = torch.where(unknown, torch.nan, asked)
        weights = self._weights(asked)
        # One may come twice: who is left when the near ones are taken is not near.
        drawn = torch.multinomial(weights, self.count, replacement=True, generator=generator)
        # As they are kept, for a volume taken from the pool is made into single precision with all that is beside it.
        near = torch.cat([self.pool.samples[place]["target"] for place in drawn.tolist()]).float()
        return {**sample, "conditions": asked, "near_target": near, "near_index": drawn}

    def _weights(self, asked: torch.Tensor) -> torch.Tensor:
        found = self.nearness(asked, self.attributes)
        # Where nobody is like this, all are as good as each other.
        return found if bool((found > 0).any()) else torch.ones_like(found)
