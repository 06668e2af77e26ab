"""The case bank: past cases, and the nearest to a tumour by the overlap of their masks."""

from whence.retrieval.bank import STRATEGIES, Bank, Match, overlap
from whence.retrieval.manifest import Manifest
from whence.retrieval.segment import Case
from whence.retrieval.space import BankSpace, thumbnail
from whence.retrieval.writing import Entry, Row, add, build, remove

__all__ = [
    "STRATEGIES",
    "Bank",
    "BankSpace",
    "Case",
    "Entry",
    "Manifest",
    "Match",
    "Row",
    "add",
    "build",
    "overlap",
    "remove",
    "thumbnail",
]
