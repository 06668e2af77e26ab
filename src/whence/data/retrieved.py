"""Samples with a past case beside each, one of those that were found for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from whence.data.dataset import PairDataset

# How often the queries are gone through, each time with other cases, before the order repeats itself.
LAPS = 64


class RetrievedDataset(Dataset):
    """Queries, each with a case drawn from those that were found for it.

    ``found`` names for each query the places of its cases in ``pool``; queries without one are left out. A sample is
    what the query's holds, and what the case's holds as ``case_<name>``. Sample ``k`` is the same at each call, so that
    a resumed run sees what it would have seen.
    """

    def __init__(self, queries: PairDataset, pool: PairDataset, found: Sequence[Sequence[int]], seed: int = 0) -> None:
        self.queries, self.pool, self.found, self.seed = queries, pool, found, seed
        self.frame = queries.frame
        self.places = [place for place, cases in enumerate(found) if cases]

    def __len__(self) -> int:
        return LAPS * len(self.places)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        lap, number = divmod(index, len(self.places))
        place = self.places[number]
        mixed = (self.seed * 1_000_003 + lap * 7919 + place * 104_729) % (2**63)
        cases = self.found[place]
        drawn = int(torch.randint(len(cases), (1,), generator=torch.Generator().manual_seed(mixed)))
        case = {f"case_{name}": value for name, value in self.pool[cases[drawn]].items()}
        return {**self.queries[place], **case}
