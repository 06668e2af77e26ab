"""Pairs tables, what networks see of them, readers of real data sets, and phantoms."""

from whence.data.augment import Augmentation
from whence.data.dataset import PairDataset, survey
from whence.data.frame import Frame, Intensity
from whence.data.pairs import Pair, PairsTable, read_pairs, write_pairs

__all__ = [
    "Augmentation",
    "Frame",
    "Intensity",
    "Pair",
    "PairDataset",
    "PairsTable",
    "read_pairs",
    "survey",
    "write_pairs",
]
