"""Training steps of the CPU recipes, with fused kernels and with the plain reference."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from whence.bench.rows import Row, kernel_choice
from whence.models import find_method
from whence.train.options import read_recipe

# Recipe and the lattice it is made for.
RECIPES = {"tracetrans-cpu": (128, 128), "tracetrans-cpu-3d": (64, 64, 64)}


def title(quick: bool) -> str:
    """Heading of the table."""
    return "A training step with fused and with plain kernels" + (", small sizes" if quick else "")


def notes(quick: bool) -> str:
    """What the columns mean."""
    return (
        "Median and range of steps taken in turn by both, in one process on random smooth images, compilation "
        "excluded. Convolutions are torch's in both; what differs is exp, warp and the similarity."
    )


def rows(quick: bool) -> list[Row]:
    """A row a recipe; the smoke version takes three steps on small images."""
    return [
        Row(
            recipe,
            {"recipe": recipe, "shape": [32] * len(shape) if quick else list(shape), "steps": 3 if quick else 25},
        )
        for recipe, shape in RECIPES.items()
    ]


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Milliseconds of a step with either back end, and their ratio."""
    recipe, shape = row.settings["recipe"], tuple(row.settings["shape"])
    method = find_method(recipe.split("-")[0])
    model, train = read_recipe(recipe, method)
    torch.manual_seed(train.seed)
    net = method(model, len(shape), 1, 1)
    optimizers = net.optimizers()
    generator = torch.Generator().manual_seed(0)
    mode = "bilinear" if len(shape) == 2 else "trilinear"

    def images() -> torch.Tensor:
        coarse = torch.randn(train.batch_size, 1, *[n // 8 for n in shape], generator=generator)
        return torch.nn.functional.interpolate(coarse, shape, mode=mode).clamp(-1, 1)

    batch = {"source": images(), "target": images()}
    seconds: dict[str, list[float]] = {"": [], "reference": []}
    for step in range(-2, row.settings["steps"]):
        for choice, times in seconds.items():
            with kernel_choice(choice):
                started = time.perf_counter()
                net.training_step(batch, optimizers, lambda loss: loss.backward(), generator, max(step, 0))
                # The first steps compile and warm up.
                if step >= 0:
                    times.append(time.perf_counter() - started)
    fused, plain = seconds.values()
    return {
        "fused [ms]": _cell(fused),
        "plain [ms]": _cell(plain),
        "plain / fused": round(statistics.median(plain) / statistics.median(fused), 2),
    }


def _cell(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.0f} ({1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f})"
