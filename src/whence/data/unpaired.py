"""Samples of two domains that are no pairs: for each source, targets in random order."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from whence.data.dataset import PairDataset

# How often the longer domain is gone through, each time with other partners, before the order repeats itself.
LAPS = 64


class UnpairedDataset(Dataset):
    """Sources joined with targets that have nothing to do with them.

    A sample is what the source's holds, and of the target's the image, as ``target``, and whatever else is named
    ``source_...``, as ``target_...``. Sample ``k`` is the same at each call, so that a resumed run sees what it would
    have seen.
    """

    def __init__(self, sources: PairDataset, targets: PairDataset, seed: int = 0) -> None:
        self.sources, self.targets, self.seed = sources, targets, seed
        self.frame = sources.frame
        self.longest = max(len(sources), len(targets))

    def __len__(self) -> int:
        return LAPS * self.longest

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        lap, place = divmod(index, self.longest)
        mixed = (self.seed * 1_000_003 + lap) % (2**63)
        order = torch.randperm(len(self.targets), generator=torch.Generator().manual_seed(mixed))
        target = self.targets[int(order[place % len(self.targets)])]
        renamed = {name.replace("source", "target", 1): value for name, value in target.items()}
        return {**self.sources[place % len(self.sources)], **renamed}
