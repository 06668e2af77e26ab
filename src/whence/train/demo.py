"""The main job: from nothing to a page of traced predictions."""

from __future__ import annotations

from pathlib import Path

from whence.data.phantom import write_phantom
from whence.models import find_method
from whence.report import write_report
from whence.train.callbacks import progress_bar
from whence.train.evaluate import evaluate
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.table import show_summary

RECIPE, METHOD = "tracetrans-cpu", "tracetrans"


def demo(out: Path, cases: int, size: int, steps: int = 0) -> Path:
    """Phantom, fit, evaluate, report, in ``out``; returns the page. A stopped demo goes on where it stopped."""
    data = write_phantom_with_bar("surgery", cases, size, out / "data")
    model, train = read_recipe(RECIPE, find_method(METHOD), **({"steps": steps} if steps else {}))
    run = fit(METHOD, data, out / "run", model, train)
    results = out / "evaluation"
    summary = evaluate(run, data, results)
    show_summary(summary, f"{METHOD} on {summary[0]['model']['n']} held-out phantom cases")
    page = write_report(results)
    print(f"The page: {page.resolve()}")
    return page


def write_phantom_with_bar(kind: str, n: int, size: int, out: Path, dims: int = 2, seed: int = 0) -> Path:
    """Write a phantom under a progress bar; returns its pairs.csv."""
    with progress_bar() as bar:
        task = bar.add_task(f"phantom {kind}", total=n, note="")
        return write_phantom(
            kind, n, size, out, dims, seed, progress=lambda done, total: bar.update(task, completed=done)
        )
