"""Samples with their neighbours: images of people whose attributes are like theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.data import Dataset

from whence.data.dataset import PairDataset

# How often the people are gone through, each time with other neighbours, before the order repeats itself.
LAPS = 64
Nearness = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class NeighbourDataset(Dataset):
    """Samples, each with ``count`` images of people drawn from ``pool`` by how near they are to its attributes.

    ``nearness`` gives weights (n,) of people's attributes (n, K) for those asked for (K,). In a share ``dropped`` of
    cases an attribute is taken for unknown, for the sample and its neighbours alike. Neighbours of a volume's slice are
    slices of its level, or of the next. A sample is what the person's holds, its ``conditions`` (K,), and
    ``near_target`` (count * C, *shape); the person may be among the neighbours.
    Sample ``k`` is the same at each call, so that a resumed run sees what it would have seen.
    """

    def __init__(
        self, people: PairDataset, pool: PairDataset, count: int, nearness: Nearness, dropped: float, seed: int = 0
    ) -> None:
        self.people, self.pool, self.frame = people, pool, people.frame
        self.count, self.nearness, self.dropped, self.seed = count, nearness, dropped, seed
        self.attributes = torch.stack([sample["conditions"] for sample in pool.samples])
        self.levels = torch.tensor([float("nan") if place is None else place for place in pool.slices])
        self.weights: dict[bytes, torch.Tensor] = {}

    def __len__(self) -> int:
        return LAPS * len(self.people)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        lap, place = divmod(index, len(self.people))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + lap * 7919 + place * 104_729 + 17) % (2**63))
        sample = self.people[place]
        asked = sample["conditions"]
        unknown = torch.rand(len(asked), generator=generator) < self.dropped
        asked = torch.where(unknown, torch.nan, asked)
        level = self._level(self.people.slices[place])
        near = self._weights(asked) * level
        weights = near if bool(near.any()) else level
        # One may come twice: who is left when the near ones are taken is not near.
        drawn = torch.multinomial(weights, self.count, replacement=True, generator=generator)
        near = torch.cat([self.pool[int(place)]["target"] for place in drawn])
        return {**sample, "conditions": asked, "near_target": near}

    def _level(self, own: int | None) -> torch.Tensor:
        """1 for whom of the pool lies at a slice's level (n,), 0 for the others; 1 for all where images are whole."""
        if own is None:
            return torch.ones(len(self.levels), dtype=torch.float64)
        # No comparison holds of NaN, a whole image.
        near = (~((self.levels - own).abs() > 1)).double()
        # Where a level is one's own alone, all are as good as each other.
        return near if bool(near.any()) else torch.ones_like(near)

    def _weights(self, asked: torch.Tensor) -> torch.Tensor:
        key = asked.numpy().tobytes()
        if key not in self.weights:
            found = self.nearness(asked, self.attributes)
            if not bool((found > 0).any()):
                # Nobody is like this: all are as good as each other.
                found = torch.ones_like(found)
            self.weights[key] = found
        return self.weights[key]
