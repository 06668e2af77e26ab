"""Attributes of a person by name, continuous or categorical, any of which may be unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from whence.errors import InputError

# Deviations from the mean of people beyond which hardly anybody was seen.
UNSEEN = 2.5


@dataclass(frozen=True)
class Attributes:
    """What the attributes of a method's training rows were: numbers' means, deviations and least and most, words.

    A person's attributes are a vector (K,), in the order of ``names``: numbers in deviations from the mean, words by
    their place in ``words``, NaN where unknown.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, tuple[float, float]]
    words: Mapping[str, tuple[str, ...]]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Attributes:
        """Those of training rows' conditions. Raises InputError where no row, or no two different ones, name one."""
        numbers: dict[str, tuple[float, float]] = {}
        words: dict[str, tuple[str, ...]] = {}
        ranges: dict[str, tuple[float, float]] = {}
        for name in names:
            values = [row[name] for row in rows if name in row]
            if len(set(values)) < 2:
                known = sorted({key for row in rows for key in row})
                reason = "no two rows to train on differ in" if values else "no row to train on has"
                raise InputError(
                    f"{reason} {name!r}; expected a column of conditions, "
                    f"of which the table has {', '.join(known) or 'none'}"
                )
            strays = [value for value in values if not _is_number(value)]
            if strays and 2 * len(strays) < len(values):
                raise InputError(
                    f"{name!r} is {strays[0]!r} in a row and a number in {len(values) - len(strays)} of {len(values)}; "
                    "expected numbers, and nothing where it is unknown"
                )
            if all(isinstance(value, (int, float)) for value in values):
                found = torch.tensor(values, dtype=torch.float64)
                numbers[name] = (float(found.mean()), float(found.std()))
                ranges[name] = (float(found.min()), float(found.max()))
            else:
                words[name] = tuple(sorted(set(map(str, values))))
        return cls(tuple(names), numbers, words, ranges)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Attributes:
        """From what ``to_dict`` gave."""
        numbers = {name: (float(mean), float(deviation)) for name, (mean, deviation) in content["numbers"].items()}
        words = {name: tuple(values) for name, values in content["words"].items()}
        ranges = {name: (float(least), float(most)) for name, (least, most) in content.get("ranges", {}).items()}
        return cls(tuple(content["names"]), numbers, words, ranges)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        numbers = {name: list(pair) for name, pair in self.numbers.items()}
        words = {name: list(values) for name, values in self.words.items()}
        ranges = {name: list(pair) for name, pair in self.ranges.items()}
        return {"names": list(self.names), "numbers": numbers, "words": words, "ranges": ranges}

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many words each attribute may be; 0 for a number."""
        return tuple(len(self.words.get(name, ())) for name in self.names)

    def vector(self, values: Mapping[str, Any]) -> torch.Tensor:
        """A person's attributes (K,), of values by name; others than ``names`` are left alone.

        Raises InputError for a word that no row had, or what is no number where one is expected.
        """
        return torch.tensor([self._of(name, values.get(name)) for name in self.names], dtype=torch.float32)

    def parsed(self, words: Sequence[str]) -> dict[str, str]:
        """Values by name of words like ``age=65``. Raises InputError for another word, and an attribute not known."""
        found: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or not value:
                raise InputError(f"expected a condition as {self.names[0]}=VALUE; got {word!r}")
            if name in found:
                raise InputError(f"{name} is asked for twice, as {found[name]} and {value}; expected it once")
            if name not in self.names:
                raise InputError(f"the model knows nothing of {name!r}; expected {' or '.join(self.names)}")
            found[name] = value
        self.vector(found)
        return found

    def beyond(self, values: Mapping[str, Any]) -> list[str]:
        """What to say of numbers by name that no training row reached, or hardly any came near."""
        said = []
        for name, (mean, deviation) in self.numbers.items():
            number = float(values.get(name, mean))
            far = abs(number - mean) / deviation
            least, most = self.ranges.get(name, (-math.inf, math.inf))
            if not least <= number <= most:
                said.append(
                    f"note: {name}={number:g} lies outside of those learnt from ({least:g} to {most:g}): "
                    "what is drawn there is a guess"
                )
            elif far > UNSEEN:
                said.append(
                    f"note: {name}={number:g} lies {far:.1f} deviations from the mean of those learnt from "
                    f"({mean:.4g} ± {deviation:.2g}): what is drawn there is a guess"
                )
        return said

    def _of(self, name: str, value: Any) -> float:
        if value is None:
            return math.nan
        if name in self.words:
            if str(value) not in self.words[name]:
                raise InputError(f"{name} is {value!r}; expected one of {', '.join(self.words[name])}")
            return float(self.words[name].index(str(value)))
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is {value!r}; expected a number") from error
        if not math.isfinite(number):
            raise InputError(f"{name} is {value!r}; expected a finite number")
        mean, deviation = self.numbers[name]
        return (number - mean) / deviation

    def nearness(self, asked: torch.Tensor, people: torch.Tensor, width: float) -> torch.Tensor:
        """exp(-d^2 / 2 width^2) of people (n, K), d their distance from what is asked for (K,), in deviations.

        What is not asked for does not count; who lacks what is asked for, or has another word, is not near at all.
        """
        total = torch.zeros(len(people), dtype=torch.float64)
        for wanted, column, words in zip(asked, people.T, self.kinds, strict=True):
            if torch.isnan(wanted):
                continue
            apart = (column - wanted).double()
            total = total + torch.where(apart == 0, 0.0, math.inf) if words else total + (apart / width) ** 2 / 2
        return torch.exp(-torch.nan_to_num(total, nan=math.inf, posinf=math.inf))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
