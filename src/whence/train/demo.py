"""The main job: from nothing to a page of traced predictions."""

from __future__ import annotations

from pathlib import Path

from whence.errors import InputError
from whence.models import find_method
from whence.report import write_report
from whence.train.datasets import write_phantom_with_bar
from whence.train.evaluate import evaluate
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.table import show_summary

RECIPE, METHOD = "tracetrans-cpu", "tracetrans"
# The recipe was chosen on the cases of seed 0 (`whence bench tracetrans`); the demo reports on others.
SEED = 1


def demo(out: Path, cases: int, size: int, steps: int = 0) -> Path:
    """Phantom, fit, evaluate, report, in ``out``; returns the page. A stopped demo goes on where it stopped."""
    if cases < 2:
        raise InputError(f"a demo needs at least 2 cases, one of them held out; got {cases}")
    model, train = read_recipe(RECIPE, find_method(METHOD), **({"steps": steps} if steps else {}))
    data = write_phantom_with_bar("surgery", cases, size, out / "data", seed=SEED)
    run = fit(METHOD, data, out / "run", model, train)
    results = out / "evaluation"
    summary = evaluate(run, data, results)
    show_summary(summary, f"{METHOD} on {summary[0]['model']['n']} held-out phantom cases")
    page = write_report(results)
    print(f"The page: {page.resolve()}")
    return page
