"""The evaluation's summary on the screen."""

from __future__ import annotations

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
            _figure(model),
            "-" if beside is None else _figure(beside),
            str(model["n"]),
        )
    Console().print(table)


def _figure(moments: dict[str, float]) -> str:
    digits = 2 if abs(moments["mean"]) >= 1 else 4
    return f"{moments['mean']:.{digits}f} ± {moments['sd']:.{digits}f}"
