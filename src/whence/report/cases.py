"""What lies in a folder of traces: the trace folders, the metrics of each case and their summary."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whence.errors import InputError
from whence.io import load_json

DEPTH = 2


@dataclass(frozen=True)
class Findings:
    """Trace folders with their names, rows of metrics.csv by case, and summary.json."""

    folders: dict[str, Path]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def find_cases(folder: str | Path) -> Findings:
    """Traces of a folder, itself one or holding some at a depth of at most two.

    Where its summary lists ``cases``, as an evaluation's does, these alone, in the summary's order.
    Raises InputError where there is no folder, no trace, or a table that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected a trace folder, or a folder that holds some; got {folder}, which is no folder")
    summary = _summary(folder / "summary.json")
    if (folder / "trace.json").is_file():
        found = {folder.resolve().name: folder}
    elif "cases" in summary:
        listed = {name: folder / "cases" / name for name in summary["cases"]}
        found = {name: case for name, case in listed.items() if (case / "trace.json").is_file()}
    else:
        patterns = ["/".join(["*"] * depth) + "/trace.json" for depth in range(1, DEPTH + 1)]
        files = sorted(f for pattern in patterns for f in folder.glob(pattern))
        files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
        found = {}
        for file in files:
            name = file.parent.name
            found[name if name not in found else str(file.parent.relative_to(folder))] = file.parent
    if not found:
        raise InputError(f"found no trace.json in {folder} nor {DEPTH} folders below; expected a trace folder")
    return Findings(found, _rows(folder / "metrics.csv"), summary)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "id" not in (reader.fieldnames or ()):
            raise InputError(f"expected a column 'id' in {path}; got {', '.join(reader.fieldnames or ()) or 'none'}")
        return {row["id"]: {k: _number(v) for k, v in row.items() if k} for row in reader}


def _summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    summary = load_json(path)
    metrics = summary.get("metrics", []) if isinstance(summary, dict) else None
    if not isinstance(metrics, list) or not all(isinstance(m, dict) and "name" in m for m in metrics):
        raise InputError(f"expected a table of named 'metrics' in {path}; got {type(metrics).__name__}")
    cases = summary.get("cases", [])
    if not isinstance(cases, list) or not all(isinstance(name, str) for name in cases):
        raise InputError(f"expected a list of ids as 'cases' in {path}; got {cases!r}")
    return finite(summary)


def _number(text: Any) -> Any:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return text
    return value if math.isfinite(value) else None


def finite(value: Any) -> Any:
    """The same nested value with None for what is not finite, since JSON has no such number."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if hasattr(value, "item"):
        return finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
