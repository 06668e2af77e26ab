"""When an energy has stopped falling."""

from __future__ import annotations


class Convergence:
    """Says that a level is done when its energy falls no more.

    The means of the last ``patience`` energies and of as many before them are compared: done when they differ
    by less than ``tolerance`` of the whole fall since the level began.
    """

    def __init__(self, patience: int, tolerance: float) -> None:
        self.patience, self.tolerance = patience, tolerance
        self.energies: list[float] = []

    def done(self, energy: float) -> bool:
        """Take note of an energy; True when it is time to stop."""
        self.energies.append(energy)
        n = self.patience
        if len(self.energies) < 2 * n:
            return False
        recent, before = sum(self.energies[-n:]) / n, sum(self.energies[-2 * n : -n]) / n
        return before - recent <= self.tolerance * max(self.energies[0] - recent, 0.0)
