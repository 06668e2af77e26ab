"""Several draws of a method that samples: where they differ in appearance, and where in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from whence.field import Displacement
from whence.space import Volume
from whence.trace import Trace


def joined(draws: Iterable[Trace]) -> Trace:
    """The first draw, with what all of them say as its extras.

    ``mean of n draws`` and ``deviation of the image``: of the intensities, on the source's scale; ``deviation of the
    place [mm]``: root mean square distance of the source points that the draws name from their mean. Deviations are
    over n - 1. A mean of fields need be no diffeomorphism, so that the trace itself is a draw's. Tables are
    joined, with the number of the draw; those of past cases also say how far the draw's image lies from the mean (root
    mean square, on the source's scale), and images of cases are kept of each draw that looked at others. Where draws
    looked at different cases, ``draws ... less the mean`` says what each of them brought about. Raises ValueError for
    fewer than two draws.
    """
    draws = list(draws)
    if len(draws) < 2:
        raise ValueError(f"expected two draws or more; got {len(draws)}")
    first = draws[0]
    images = torch.stack([draw.image.tensor for draw in draws])
    fields = torch.stack([draw.displacement.tensor for draw in draws])
    grid, mean = first.displacement.grid, fields.mean(dim=0)
    apart = torch.stack([Displacement(field - mean, grid).magnitude() for field in fields])
    place = (apart.square().sum(dim=0) / (len(draws) - 1)).sqrt()
    found: dict[str, Volume] = {
        f"mean of {len(draws)} draws": first.image.with_tensor(images.mean(dim=0)),
        "deviation of the image": first.image.with_tensor(images.std(dim=0)),
        "deviation of the place [mm]": first.image.with_tensor(place),
    }
    alike: dict[str, list[int]] = {}
    for number, draw in enumerate(draws):
        tables = [extra for extra in draw.extras.values() if not isinstance(extra, Volume)]
        alike.setdefault(repr([table for table in tables if table and "case" in table[0]]), []).append(number)
    for members in alike.values() if len(alike) > 1 else ():
        who = ", ".join(str(number + 1) for number in members)
        brought = images[members].mean(dim=0) - images.mean(dim=0)
        found[f"{'draws' if len(members) > 1 else 'draw'} {who} less the mean"] = first.image.with_tensor(brought)
    far = (images - images.mean(dim=0)).flatten(1).square().mean(dim=1).sqrt().tolist()
    return replace(first, extras={**_all(draws, far), **found}, info={**first.info, "draws": len(draws)})


def _all(draws: list[Trace], far: list[float]) -> dict[str, Any]:
    """What the draws carry besides: the first one's images, others where they differ, and tables joined."""
    kept: dict[str, Any] = dict(draws[0].extras)
    for name, first in draws[0].extras.items():
        others = [draw.extras[name] for draw in draws]
        if isinstance(first, Volume):
            shown = [first.tensor]
            for number, other in enumerate(others[1:], start=2):
                if not any(torch.equal(other.tensor, tensor) for tensor in shown):
                    shown.append(other.tensor)
                    kept[f"{name}, draw {number}"] = other
        else:
            numbered = enumerate(zip(others, far, strict=True), start=1)
            kept[name] = [
                {"draw": n, **row, **({"from the mean": round(apart, 4)} if "case" in row else {})}
                for n, (rows, apart) in numbered
                for row in rows
            ]
    return kept
