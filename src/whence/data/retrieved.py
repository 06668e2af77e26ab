"""Samples with a past case beside each, one of those that were found for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from whence.data.dataset import PairDataset
from whence.field import resample
from whence.space import Grid, Volume

# How often the queries are gone through, each time with other cases, before the order repeats itself.
LAPS = 64
# How columns of masks end.
MASKS = ("_mask", "_cavity")


class RetrievedDataset(Dataset):
    """Queries, each with a case drawn from those that were found for it.

    ``found`` names for each query the places of its cases in ``pool``; queries without one are left out. A sample is
    what the query's holds, and what the case's holds as ``case_<name>``, at its place in the world. Sample ``k`` is the
    same at each call, so that a resumed run sees what it would have seen.
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
        there, here = self.pool.grids[cases[drawn]], self.queries.grids[place]
        case = self.pool[cases[drawn]]
        if not there.same_as(here):
            case = {name: placed(value, there, here, name.endswith(MASKS)) for name, value in case.items()}
        return {**self.queries[place], **{f"case_{name}": value for name, value in case.items()}}


def placed(values: torch.Tensor, there: Grid, here: Grid, mask: bool) -> torch.Tensor:
    """An image (C, *there.shape) in [-1, 1], or a mask of 0 and 1, on another grid, at its place in the world.

    What lies beyond it is background, -1 or 0.
    """
    # Raised, so that what a resampling takes for 0 is the background of images.
    beyond = 0.0 if mask else 1.0
    shown = resample(Volume((values + beyond)[None], there), here, outside="zeros").tensor[0] - beyond
    return (shown >= 0.5).float() if mask else shown
