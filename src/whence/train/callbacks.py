"""What watches a run: the progress bar and the table of losses."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from whence.io import replacing
from whence.models.method import stage_at


def progress_bar(transient: bool = False) -> Progress:
    """The bar every long command shows: what, how far, how long yet, and a note."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        transient=transient,
        expand=True,
    )


def stage_of(step: int, stages: Sequence[int]) -> str:
    """Which stage comes after ``step`` steps, of ``stages`` and all further steps; empty where there are none."""
    if not stages:
        return ""
    return f"stage {stage_at(step, stages) + 1} of {len(stages) + 1}"


class Watch(Callback):
    """One bar over all steps, a row of metrics.csv and a TensorBoard entry for each stretch."""

    def __init__(self, path: Path, description: str) -> None:
        self.path, self.description = path, description
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: Counter[str] = Counter()
        self.held_out: list[dict[str, float]] = []
        self.started = time.monotonic()
        self.bar: Progress | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self._keep_rows_before(pl_module.first_step)
            if pl_module.first_step:
                print(f"goes on at step {pl_module.first_step} of {pl_module.settings.steps}")
            self.bar = progress_bar()
            self.task = self.bar.add_task("", total=pl_module.settings.steps, note="")
            self._show(pl_module, pl_module.first_step)
            self.bar.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        for name, value in outputs.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + value.detach().float().cpu()
        # Terms change where a stage ends.
        self.counts.update(outputs.keys())
        if self.bar is not None:
            self._show(pl_module, pl_module.first_step + batch_idx + 1)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.held_out.append({f"val_{name}": float(value) for name, value in outputs.items()})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or not self.counts:
            return
        row = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        for name in self.held_out[0] if self.held_out else ():
            row[name] = sum(part[name] for part in self.held_out) / len(self.held_out)
        step = min(pl_module.first_step + pl_module.settings.save_every, pl_module.settings.steps)
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        self._append({"step": step, "seconds": round(time.monotonic() - self.started, 1), **row})
        if self.bar is not None:
            shown = [f"{name} {row[name]:.3f}" for name in row if name.startswith("val_") or name == "loss"]
            self.bar.update(self.task, note="  ".join(shown))
        self.sums, self.counts, self.held_out = {}, Counter(), []

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _show(self, pl_module: Any, step: int) -> None:
        assert self.bar is not None
        stage = stage_of(step, pl_module.method.stages(pl_module.method.config))
        self.bar.update(self.task, completed=step, description=", ".join(filter(None, (self.description, stage))))

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _keep_rows_before(self, step: int) -> None:
        """Drop the rows of steps that a resumed run is about to take again."""
        self._write([row for row in self._rows() if float(row["step"]) <= step])

    def _append(self, row: dict[str, Any]) -> None:
        self._write([*self._rows(), row])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        with replacing(self.path) as temporary, Path(temporary).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
