"""The evaluation's summary on the screen."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table


def show_summary(summary: list[dict[str, Any]], title: str) -> None:
    """Print one line a figure: the model beside doing nothing, mean and standard deviation over cases."""
    table = Table(title=title)
    for name, side in (("", "left"), ("model", "right"), ("do nothing", "right"), ("n", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for entry in summary:
        arrow = "↑" if entry["better"] == "higher" else "↓"
        unit = f" [{entry['unit']}]" if entry["unit"] else ""
        model, beside = entry["model"], entry["nothing"]
        table.add_row(
            f"{entry['label']}{unit} {arrow}".replace("[", r"\["),
            _figure(model, model["n"]),
            "-" if beside is None else _figure(beside, beside["n"]),
            str(model["n"]),
        )
    Console().print(table)


def _figure(moments: dict[str, float], n: int) -> str:
    """Mean and deviation, down to the second digit of the deviation or, for a single case, the third of the mean."""
    size = moments["sd"] / 10 if n > 1 and moments["sd"] > 0 else abs(moments["mean"]) / 100
    digits = min(6, max(0, math.ceil(-math.log10(size)))) if size > 0 else 0
    spread = f" ± {moments['sd']:.{digits}f}" if n > 1 else ""
    return f"{moments['mean']:.{digits}f}{spread}"
