"""Plasticine's table: can a translation be traced, and what of it can be used, on two populations and two devices."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from whence.bench.cost import cost
from whence.bench.follow import SHOWN, followed, mean_dice
from whence.bench.rows import Row, mean_cell
from whence.bench.segmenter import Segmenter, distances, segmenter
from whence.data.dataset import read_image
from whence.data.pairs import Pair, PairsTable, read_pairs
from whence.data.phantom import write_phantom
from whence.field import Displacement
from whence.io import read_displacement, read_labels, replacing, write_labels
from whence.metrics import label_overlap
from whence.models import find_method
from whence.models.evaluator import translate
from whence.models.predictor import Predictor
from whence.models.structure import sees_labels
from whence.registration import default_similarity, register_diffeomorphic
from whence.trace import Trace
from whence.train.evaluate import predict_row
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load
from whence.train.score import nothing

ANATOMIES = {"oct": "OCT", "brain": "brain"}
LABELS: dict[str, Any] = {"method": "plasticine", "recipe": "plasticine-labels-cpu"}
FAR = {"rotation": 3.0, "translation": 0.2, "scaling": 0.15, "elastic": 120.0, "coarse": 3000.0}
# Without the part that an adversary teaches, sources of one domain are joined with targets of the other at random.
APART: dict[str, Any] = {"population": 0.0, "given": 0.5, "aligned": 0.7, **FAR}
KINDS: dict[str, dict[str, Any]] = {
    "the target's own images": {"only": "target"},
    "the source as it is": {"only": "source"},
    "the partner by the true field": {"only": "partner"},
    "CycleGAN": {"method": "cyclegan"},
    "RegGAN": {"method": "reggan"},
    "Pix2Pix, on pairs": {"method": "pix2pix", "paired": True},
    "diffusion without the module": {**LABELS, "labels": "found", "transformation": False, "population": 0.0},
    "Plasticine, edges": {"method": "plasticine"},
    "Plasticine, nothing known of the populations": {**LABELS, **APART, "labels": "found"},
    "Plasticine": {**LABELS, "labels": "found"},
    "Plasticine, true labels": {**LABELS, "labels": "true"},
}

# Rows of one trained model that differ in how it samples: solver, numbers of steps.
CURVES = {"ddim": (2, 5, 10, 100), "dpm": (2, 5, 10, 100)}
ENDS = {"ddim": "", "dpm": " of DPM-Solver++"}


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"Plasticine on the domain phantoms{', smoke version' if quick else ' (2D, 96 x 96, 25 held-out people)'}"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 10 steps on 40 people. It shows that every row runs; its figures mean nothing."
    return (
        "Mean ± standard deviation over people. Trace Dice: the source's true labels, carried by the trace, against "
        "those that a segmenter trained on the target's domain alone finds in the prediction. Downstream: the "
        "segmenter's labels on the prediction, carried back by the inverse, against the source's true ones; for the "
        "source as it is, the segmenter applied to it directly. Partner: the image that the phantom knows the person "
        "would give in the other domain, at the same rank of every trait; a translation is not told of it; by the "
        "true field it shows what the segmenter's errors and the carrying of labels leave to be had. Dice with the "
        "partner: the labels found in the prediction against the partner's true ones, whether the shape is the one "
        "sought; field error: mean distance of the trace from the true field over the partner's labels. SSIM and PSNR"
        " are over the whole image. Frechet and kernel distance: of the mean deepest features of that segmenter, "
        "predictions against the target domain's training images; the target's own images, as many others, show what "
        "so few leave by chance. Plasticine and the diffusion without its module see labels, in training the true "
        "ones of both domains, which no GAN here does; of those held out what a segmenter of the source's domain "
        "finds in the scan (labels given: its Dice), or the true ones; or edges and no labels. Where nothing is known"
        " of the populations the part that an adversary teaches is left out, and sources are joined with targets at "
        "random. All methods train 1500 steps by their CPU recipes on the same people, of 8 images, 4 for CycleGAN "
        "and RegGAN; unpaired but for Pix2Pix, which sees the true partners. RegGAN's registration network is not "
        "asked, for it would need the partner; a trace that a method does not have is recovered by registration with "
        "MIND. Time and memory are of one prediction with its trace in a process of its own, libraries included, the "
        "segmenter that finds labels not."
    )


def rows(quick: bool) -> list[Row]:
    """Both anatomies by each method, and Plasticine by other numbers of solver steps."""
    base: dict[str, Any] = {"cases": 400, "size": 96, "steps": 1500}
    if quick:
        base = {"cases": 40, "size": 48, "steps": 10}
    found = []
    for anatomy, shown in ANATOMIES.items():
        common = {**base, "anatomy": anatomy}
        found += [Row(f"{shown}: {name}", {**common, **kind}) for name, kind in KINDS.items()]
        plain = {**common, **KINDS["Plasticine"]}
        found += [
            Row(f"{shown}: Plasticine, {n} solver steps{ENDS[solver]}", {**plain, "solver_steps": n, "solver": solver})
            for solver, counts in CURVES.items()
            for n in counts
        ]
    return found


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train what the row needs, in a folder that rows which differ in how they sample share, and follow its traces."""
    settings = dict(row.settings)
    seen, only, paired = settings.pop("labels", None), settings.pop("only", None), settings.pop("paired", False)
    anatomy, cases, size = (settings.pop(name) for name in ("anatomy", "cases", "size"))
    where = data / f"{anatomy}_{cases}_{size}"
    table = write_phantom("domains", cases, size, where / "data", anatomy=anatomy)
    images = read_pairs(table, columns=("source",))
    labels = [int(label) for label in images.label_names]

    def trained(domain: str) -> Segmenter:
        rows = images.split("train").domain(domain)
        return segmenter(rows, labels, where / f"segmenter_{domain}.pt", min(1200, 12 * cases))

    judge = trained("target")
    reference = judge.describe([read_image(row.path("source")) for row in images.split("train").domain("target")])
    if only == "target":
        others = [read_image(row.path("source")) for row in images.split("test").domain("target")]
        return _apart(distances(reference, judge.describe(others)))
    people, cells = images.split("test").domain("source"), {}
    if only is not None:
        traces = [{"source": _unmoved, "partner": _true}[only](row) for row in people]
    else:
        asked = people
        if seen == "found":
            asked = _relabelled(people, trained("source"), where / "found")
            pairs = zip(asked, people, strict=True)
            both = [[read_labels(row.path("source_labels")) for row in pair] for pair in pairs]
            cells["labels given"] = mean_cell([mean_dice(label_overlap(*pair, labels)) for pair in both], 3)
        predictor, run = _trained(settings, where, table.parent / "paired.csv" if paired else table)
        # RegGAN's own answer looks at the true partner.
        sees_target = "target" in predictor.method.inputs
        traces = [_translated(predictor, row) if sees_target else predict_row(predictor, row, asked) for row in asked]
        if "solver_steps" not in settings and not sees_target:
            first = asked.rows[0]
            given = first.path("source_labels") if "source_labels" in predictor.method.inputs else None
            seconds, memory = cost(run, first.path("source"), given, torch.get_num_threads())
            cells |= {"time [s]": f"{seconds:.2f}", "memory [MiB]": f"{memory:.0f}"}
    figures = [followed(trace, row, judge, labels) for trace, row in zip(traces, people, strict=True)]
    shown = {name: mean_cell([f[key] for f in figures], digits) for name, (key, digits) in SHOWN.items()}
    return shown | _apart(distances(reference, judge.describe([trace.image for trace in traces]))) | cells


def _trained(settings: dict[str, Any], where: Path, table: Path) -> tuple[Predictor, Path]:
    """The predictor of a row's run, which samples as the row says, and the run's folder."""
    settings = dict(settings)
    method, sampling = settings.pop("method"), {k: settings.pop(k) for k in ("solver", "solver_steps") if k in settings}
    recipe, name = settings.pop("recipe", f"{method}-cpu"), method
    model, train = read_recipe(recipe, find_method(method), save_every=settings["steps"], **settings)
    if "structure" in asdict(model):
        name += f"_{model.structure}" + ("" if model.transformation else "_without")
        name += "_apart" if sees_labels(model.structure) and model.transformation and not model.population else ""
    run = fit(method, table, where / name, model, train)
    predictor = load(run)
    if sampling:
        # The numbers of solver steps are of one model.
        predictor.method.config = replace(model, **sampling)
    return predictor, run


def _unmoved(row: Pair) -> Trace:
    image = read_image(row.path("source"))
    still = Displacement.identity(image.grid)
    return nothing(Trace.build(image, image, still, still, method="nothing"))


def _true(row: Pair) -> Trace:
    image, partner = (read_image(row.path(column)) for column in ("source", "target"))
    fields = (read_displacement(row.path(column)) for column in ("displacement", "inverse"))
    return Trace.build(image, partner, *fields, method="truth", kind="registered")


def _translated(predictor: Predictor, row: Pair) -> Trace:
    """A translation without a look at the target; its trace is recovered."""
    source = read_image(row.path("source"))
    image, by = translate(predictor, source), "mind"
    fields = register_diffeomorphic(image, source, default_similarity(by))
    return Trace.build(source, image, *fields, method=predictor.method.name, kind="recovered", recovered_by=by)


def _relabelled(people: PairsTable, segmenter: Segmenter, folder: Path) -> PairsTable:
    """The same people with the labels that a segmenter finds in their scans."""
    rows = []
    for row in people:
        path = folder / f"{row.id}.nii.gz"
        write_labels(segmenter.segment(read_image(row.path("source"))), path)
        rows.append(replace(row, files={**row.files, "source_labels": path}))
    return replace(people, rows=tuple(rows))


def _apart(found: dict[str, float]) -> dict[str, str]:
    return {"Frechet": f"{found['frechet']:.3f}", "kernel": f"{found['kernel']:.4f}"}


def draw(frame: Any, out: Path) -> None:
    """Quality against solver steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    named = frame.set_index("row")
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2))
    for axis, column in zip(axes, ("trace Dice", "Frechet"), strict=True):
        for (solver, counts), line in zip(CURVES.items(), ("-", "--"), strict=True):
            for number, shown in enumerate(ANATOMIES.values()):
                rows = {n: f"{shown}: Plasticine, {n} solver steps{ENDS[solver]}" for n in counts}
                known = {n: float(str(named[column][row]).split()[0]) for n, row in rows.items() if row in named.index}
                label = f"{shown}{ENDS[solver].removeprefix(' of') or ' DDIM'}"
                axis.plot([*known], [*known.values()], line, color=f"C{number}", marker="o", label=label)
        axis.set(xscale="log", xlabel="solver steps", ylabel=column)
        axis.set_xticks([2, 5, 10, 100], labels=["2", "5", "10", "100"])
        axis.set_xticks([], minor=True)
        axis.set_ylim(0, 1 if column == "trace Dice" else None)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, loc="lower left", fontsize=8)
    figure.tight_layout()
    with replacing(out / "plasticine.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
