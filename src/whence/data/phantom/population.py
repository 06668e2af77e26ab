"""Two populations whose shapes differ, and how one person would look in either."""

from __future__ import annotations

from dataclasses import dataclass

DOMAINS = ("source", "target")


@dataclass(frozen=True)
class Trait:
    """A trait of the shape: mean and standard deviation in the source's and in the target's population."""

    source: tuple[float, float]
    target: tuple[float, float]

    def of(self, domain: str, rank: float) -> float:
        """Value of who stands ``rank`` standard deviations above the mean; one's rank is the same in both."""
        mean, deviation = self.source if domain == "source" else self.target
        return mean + deviation * rank
