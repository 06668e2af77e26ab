"""The self-contained page: one file, no network."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from whence import __version__
from whence.errors import InputError
from whence.io import replacing
from whence.report.cases import Findings, find_cases
from whence.report.detail import LADDER
from whence.report.encoding import Blocks
from whence.report.payload import encode_trace
from whence.trace import Trace

SCRIPTS = (
    "geometry.js",
    "data.js",
    "render.js",
    "marks.js",
    "state.js",
    "panels.js",
    "curves.js",
    "tables.js",
    "controls.js",
    "main.js",
)
PREDICTION = "Traced prediction"
TITLES = {"registered": "Registration", "compared": "Spatial error"}
COLOURS = {"magnitude": "viridis", "jacobian": "RdBu_r", "novelty": "inferno"}
MEGABYTE = 1_000_000


def _title(cases: list[dict[str, Any]]) -> str:
    found = {case["sides"].get("prediction") or TITLES.get(case["kind"], PREDICTION) for case in cases}
    return found.pop() if len(found) == 1 else PREDICTION


def write_report(folder: str | Path, out: str | Path | None = None, max_megabytes: float = 60) -> Path:
    """Write the page for a trace folder, or for a folder that holds some; returns its path.

    ``out`` is ``folder/report.html`` unless named. Beyond ``max_megabytes`` the page first shows fewer
    cases (the first ones, every metric stays), then coarser images, then coarser fields; what was left
    out is stated on the page.
    Raises InputError where there is no trace, or where even the coarsest case is too large.
    """
    findings = find_cases(folder)
    path = Path(out) if out is not None else Path(folder) / "report.html"
    parts = _parts()
    frame = sum(len(part) for part in parts.values())
    cases, blocks = _gather(findings, max_megabytes * MEGABYTE - frame)
    summary = findings.summary
    page = {
        "title": str(summary.get("title") or _title(cases)),
        "method": str(summary.get("method") or cases[0]["method"]),
        "split": str(summary.get("split") or ""),
        "version": __version__,
        "metrics": summary.get("metrics", []),
        "total": len(findings.folders),
        "sweep": summary.get("sweep"),
        "colours": {name: _ramp(ramp) for name, ramp in COLOURS.items()},
        "cases": cases,
    }
    text = _render(parts, page, blocks)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _gather(findings: Findings, budget: float) -> tuple[list[dict[str, Any]], Blocks]:
    """The cases that fit, all at the finest detail at which the first one does."""
    cases: list[dict[str, Any]] = []
    blocks = Blocks()
    step, used = 0, 0
    for number, (name, folder) in enumerate(findings.folders.items()):
        trace = Trace.load(folder)
        label = str(trace.info.get("id") or name)
        while True:
            own = Blocks()
            case = encode_trace(trace, label, f"c{number}", own, LADDER[step])
            need = own.size + len(safe_json(case))
            if used + need <= budget:
                break
            if cases:
                return cases, blocks
            step += 1
            if step == len(LADDER):
                raise InputError(
                    f"the first case, {folder}, needs {need / MEGABYTE:.2g} MB even at the coarsest; "
                    f"got room for {max(budget, 0) / MEGABYTE:.2g} MB, expected more"
                )
        used += need
        blocks.texts.update(own.texts)
        case["row"] = findings.rows.get(label) or findings.rows.get(folder.name) or {}
        case["folder"] = folder.name
        cases.append(case)
    return cases, blocks


def _ramp(name: str, steps: int = 128) -> list[list[int]]:
    import matplotlib

    colours = matplotlib.colormaps[name].resampled(steps)(range(steps), bytes=True)
    return [[int(c) for c in colour[:3]] for colour in colours]


def _parts() -> dict[str, str]:
    """The page's own texts: its template, its style and its script."""
    assets = resources.files("whence.report") / "assets"
    return {
        "template": (assets / "page.html.j2").read_text(encoding="utf-8"),
        "style": (assets / "style.css").read_text(encoding="utf-8"),
        "script": "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }


def _render(parts: dict[str, str], page: dict[str, Any], blocks: Blocks) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(parts["template"])
    return template.render(
        page=page, style=parts["style"], script=parts["script"], manifest=safe_json(page), blocks=blocks.texts
    )


def safe_json(value: Any) -> str:
    """JSON that can stand in a script element whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
