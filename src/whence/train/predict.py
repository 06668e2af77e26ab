"""Trace folders of new images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from whence.data.dataset import read_image
from whence.data.pairs import read_pairs
from whence.errors import InputError
from whence.field import resample
from whence.io import read_labels
from whence.models.cases import Asked
from whence.models.draws import joined
from whence.models.evaluator import require_evaluator, with_novelty
from whence.models.predictor import Predictor
from whence.retrieval import Bank
from whence.space import Volume
from whence.trace import Trace
from whence.train.callbacks import progress_bar
from whence.train.evaluate import beside_truth, note_unknown, predict_row, row_generator
from whence.train.general import check_sources
from whence.train.run import check_alone, check_folder, forget_page, load
from whence.train.score import Truth

# The overlap of masks from which two tumours are one, and how many times the tumour a plan may take out unasked.
SAME, MUCH = 0.99, 4.0


@dataclass(frozen=True)
class Said:
    """What a user says of past cases and of the operation: whose not to show, which one or how many of the most
    similar, a mask of what is cut out, another bank than the run's; and the person's conditions, as ``age=65``."""

    patient: str | None = None
    case: str | None = None
    resection: str | Path | None = None
    cases: int = 1
    bank: str | Path | None = None
    conditions: tuple[str, ...] = ()

    @property
    def of_tumours(self) -> bool:
        """Whether anything of past cases or of the operation was said."""
        return replace(self, conditions=()) != Said()


def predict(
    run: str | Path,
    image: str | Path,
    out: str | Path,
    split: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    target: str | Path | None = None,
    evaluator: str | Path | None = None,
    samples: int = 1,
    labels: str | Path | None = None,
    mask: str | Path | None = None,
    said: Said | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Predict one image (or DICOM folder) into ``out``, or every row of a .csv table into ``out/<id>``.

    Rows of a table that name a target get it saved beside the prediction. Methods that sample draw from ``seed``.
    ``target`` is the second image of a method that compares two, ``labels`` those of the image for one that sees them,
    ``mask`` that of its tumour; a table names its own. Novelty is judged by the
    ``evaluator``, a run that estimates spatial error, where named.
    With more ``samples`` than one a method that draws is asked as often, with the seeds from ``seed`` on; the trace is
    the first answer's and carries the mean and the deviations of all. ``said.cases`` of the past cases are shown in
    turn, the most similar first, each to one sample or more. ``sampling``: see ``load``. Returns the trace folders.
    """
    image, out, said = Path(image), Path(out), said or Said()
    check_folder(out)
    check_alone(out, "trace.json")
    predictor = load(run, device, sampling)
    judge = None if evaluator is None else load(evaluator, device)
    if judge is not None:
        require_evaluator(judge)
    if samples < 1 or (samples > 1 and not predictor.method.draws):
        method = predictor.method.name
        wanted = "1 sample or more" if predictor.method.draws else f"1 sample of {method}, which has one answer"
        raise InputError(f"expected {wanted}; got {samples}")
    if said.cases < 1:
        raise InputError(f"expected --cases of 1 or more; got {said.cases}")
    if said.cases > 1 and said.case is not None:
        raise InputError(f"--case names one past case; expected no --cases beside it, got {said.cases}")
    if 1 < samples < said.cases:
        raise InputError(f"each of {said.cases} --cases is drawn once or oftener; got --samples {samples}")
    samples = max(samples, said.cases)
    if labels is not None and "source_labels" not in predictor.method.inputs:
        raise InputError(f"{run} is a {predictor.method.name} that sees no labels; expected no --labels")
    if (mask is not None or said.of_tumours) and "source_mask" not in predictor.method.inputs:
        raise InputError(
            f"{run} is a {predictor.method.name} that looks at no tumour; expected none of --mask, --case, --cases, "
            "--patient, --resection, --bank"
        )
    known = predictor.method.attributes
    if said.conditions and known is None:
        raise InputError(f"{run} is a {predictor.method.name} that is told no conditions; expected no --condition")
    if said.bank is not None:
        predictor = replace(predictor, bank=Bank(said.bank))
    if predictor.bank is not None and said.cases > 1:
        held = len({case.patient for case in predictor.bank})
        if said.cases > held:
            raise InputError(
                f"{predictor.bank.folder} has cases of {held} patients; expected --cases of as many at most"
            )
    if image.suffix != ".csv":
        name = image.name.split(".")[0]
        source = read_image(image)
        # Of an atlas the same draw as that of whence atlas.
        drawn_for = name if known is None else "atlas"
        check_sources(predictor, run, [image])
        if predictor.frame.dims < source.dims:
            how = "drawn together" if predictor.method.together else "each by itself"
            print(f"{image} is a volume and the model one of slices: its {predictor.frame.plane} slices, {how}")
        second = None if target is None else read_image(target)
        seen = None if labels is None else read_labels(labels)
        tumour = None if mask is None else read_labels(mask)
        common: dict[str, Any] = {"target": second, "labels": seen, "name": str(image), "id": name}
        plan = None if said.resection is None else read_labels(said.resection)
        common |= _record(run, seed, said, mask)
        common |= {"mask": tumour, "conditions": {} if known is None else known.parsed(said.conditions)}
        for note in [] if known is None else known.beyond(common["conditions"]):
            print(note)
        asked = Asked(said.patient, said.case, plan, files=(image,) if mask is None else (image, Path(mask)))
        with progress_bar() as bar:
            task = bar.add_task("predicting", total=samples, note="")
            with _noted(predictor, bar, task):
                trace = _drawn(
                    lambda n: predictor.predict(
                        source,
                        row_generator(n, drawn_for),
                        asked=replace(asked, rank=(n - seed) % said.cases),
                        **common,
                    ),
                    range(seed, seed + samples),
                    lambda: bar.advance(task),
                )
        _warn_of_strangers(trace, str(image))
        if plan is not None and tumour is not None:
            _warn_of_plan(plan, tumour, str(said.resection))
        folder = _judged(trace, judge).save(out)
        forget_page(out)
        return [folder]
    named = {"target": target, "labels": labels, "mask": mask}
    named |= {"patient": said.patient, "case": said.case, "resection": said.resection}
    named |= {"condition": said.conditions or None}
    for option, given in named.items():
        if given is not None:
            raise InputError(f"{image} is a table, which names its own {option}; expected no --{option}")
    table = read_pairs(image, columns=("source",), called=predictor.columns)
    # Who is of the target's domain needs no translation into it.
    rows = (table.split(split) if split else table).domain("source")
    note_unknown(predictor, rows, image)
    check_sources(predictor, run, [row.path("source") for row in rows])
    folders = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(rows) * samples, note="")
        for row in rows:
            with _noted(predictor, bar, task):
                trace = _drawn(
                    lambda n, row=row: predict_row(  # type: ignore[misc]
                        predictor, row, rows, n, (n - seed) % said.cases
                    ),
                    range(seed, seed + samples),
                    lambda: bar.advance(task),
                )
            _warn_of_strangers(trace, row.id)
            trace = _judged(trace, judge)
            if "target" in row.files:
                trace = beside_truth(trace, Truth.of(row, trace.image), row)
            folders.append(trace.save(out / row.id))
    forget_page(out)
    return folders


def _drawn(ask: Callable[[int], Trace], seeds: range, done: Callable[[], None]) -> Trace:
    """What a method answers to one seed, or the answers to several, joined."""
    traces = []
    for seed in seeds:
        traces.append(ask(seed))
        done()
    return traces[0] if len(traces) == 1 else joined(traces)


@contextmanager
def _noted(predictor: Predictor, bar: Progress, task: TaskID) -> Iterator[None]:
    """Within the block the bar shows how far an answer of many steps has come."""
    predictor.method.on_step = lambda done, total: bar.update(task, note=f"step {done} of {total}")
    try:
        yield
    finally:
        predictor.method.on_step = None


def _record(run: str | Path, seed: int, said: Said, mask: str | Path | None = None) -> dict[str, Any]:
    """What was asked for, so that a trace says how it was made."""
    given = {name: value for name, value in vars(said).items() if value != getattr(Said(), name)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    named = {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
    named |= {} if mask is None else {"mask": str(mask)}
    return {"run": str(run), "seed": seed, **({"said": named} if named else {})}


def _warn_of_strangers(trace: Trace, name: str) -> None:
    """Say where the past cases that were shown do not overlap the tumour at all, or are the tumour itself."""
    shown = trace.extras.get("retrieved cases", [])
    if same := {str(case["patient"]) for case in shown if case["iou"] > SAME}:
        who = ", ".join(sorted(same))
        print(f"{name}: the tumour of {who} is the very same; --patient leaves one's own cases out")
    if shown and not any(case["iou"] for case in shown):
        cases = ", ".join(dict.fromkeys(str(case["case"]) for case in shown))
        print(f"{name}: no past case that was shown overlaps this tumour ({cases}); they have little to say")


def _warn_of_plan(plan: Volume, tumour: Volume, name: str) -> None:
    """Say where a plan leaves the tumour alone, or takes out many times as much."""
    cut = plan.tensor != 0
    there = resample(tumour, plan.grid, mode="label", outside="zeros").tensor != 0
    if not bool((cut & there).any()):
        print(f"{name}: this resection touches nothing of the tumour")
    elif int(cut.sum()) > MUCH * int(there.sum()):
        print(f"{name}: this resection is {int(cut.sum()) / int(there.sum()):.0f} times as large as the tumour")


def _judged(trace: Trace, judge: Predictor | None) -> Trace:
    return trace if judge is None else with_novelty(trace, judge)
