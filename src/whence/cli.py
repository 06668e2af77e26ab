"""The commands. Each is a thin door: options are read here, the work is elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from whence.errors import InputError
from whence.memory import keep_freed_memory

COMMANDS = {
    "demo": "phantom -> fit -> predict -> evaluate -> report, on a CPU, in minutes",
    "phantom": "write a data set with exactly known correspondences",
    "pairs": "turn a published data set's layout into a pairs table",
    "fit": "train a method; the same command resumes a stopped run",
    "predict": "predict an image or a table; writes trace folders",
    "atlas": "the atlas of a condition, or of a sweep of them, made of a general one",
    "error": "map where two images disagree about the place of things, whatever their modalities",
    "translate": "give an image another one's appearance",
    "register": "register two images, or the pairs of a table; writes trace folders",
    "template": "the mean image of a table's people in the mean of their shapes",
    "apply": "warp an image, labels or points by a field",
    "evaluate": "tables of a run over held-out pairs",
    "report": "the page of a trace folder or an evaluation",
    "bank": "past cases, found by the overlap of their tumours: build, add, remove, query, info",
    "bench": "make a table of the docs anew",
    "methods": "list the methods at hand",
}

BANK_WORDS = ("build", "add", "remove", "query", "info")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for a user's mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if given[0] in ("-V", "--version"):
        from whence import __version__

        print(__version__)
        return 0
    if given[0] not in COMMANDS:
        return _fail(f"unknown command {given[0]!r}; expected one of {', '.join(COMMANDS)}")
    keep_freed_memory()
    try:
        _DOORS[given[0]](given[1:])
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except MemoryError:
        return _fail("not enough memory; try smaller images, fewer features or a smaller batch")
    except RuntimeError as error:
        # torch has an exception of its own for a GPU's memory and none for the machine's.
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        return _fail("not enough memory; try smaller images, fewer features or a smaller batch")
    except FloatingPointError as error:
        return _fail(f"training stopped: {error}; try a lower learning rate")
    except KeyboardInterrupt as error:
        print(str(error) or "stopped; the same command takes up the work where it can", file=sys.stderr)
        return 130
    return 0


def _fail(sentence: str) -> int:
    print(f"whence: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def _overview() -> str:
    lines = ["usage: whence COMMAND ...", "", "whence COMMAND --help explains each.", ""]
    return "\n".join(lines + [f"  {name:10s} {text}" for name, text in COMMANDS.items()])


def _parser(command: str, word: str = "") -> Any:
    from whence.train.parser import Parser

    parser = Parser(prog=f"whence {command} {word}".strip(), description=COMMANDS[command])
    parser.add_argument("--config", action="config", help="YAML file of options")
    return parser


def _demo(given: list[str]) -> None:
    from whence.train.demo import demo

    parser = _parser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the demo's data, run and report")
    parser.add_argument("--cases", type=int, default=450, help="phantom cases, of which a part is held out: 50 of 450")
    parser.add_argument("--size", type=int, default=128, help="voxels along each side")
    parser.add_argument("--steps", type=int, default=0, help="training steps; the recipe's if 0")
    options = parser.parse_args(given)
    demo(options.out, options.cases, options.size, options.steps)


def _phantom(given: list[str]) -> None:
    from whence.data.phantom import PHANTOMS, phantom_options
    from whence.train.datasets import write_phantom_with_bar

    parser = _parser("phantom")
    parser.add_argument("kind", help=f"which phantom: {', '.join(PHANTOMS)}")
    parser.add_argument("--n", type=int, default=400, help="number of cases")
    parser.add_argument("--size", type=int, default=128, help="voxels along each side")
    parser.add_argument("--dims", type=int, default=2, help="2 or 3")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--jobs", type=int, default=1, help="processes that write; the bytes stay the same")
    own = phantom_options()
    for name, words in own.items():
        parser.add_argument(f"--{name}", type=str, help=words)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    options = parser.parse_args(given)
    chosen = {name: options[name] for name in own if options[name] is not None}
    settings = (options.kind, options.n, options.size, options.out, options.dims, options.seed, options.jobs)
    print(write_phantom_with_bar(*settings, **chosen))


def _pairs(given: list[str]) -> None:
    from whence.data.readers import READERS
    from whence.train.datasets import convert_with_bar

    parser = _parser("pairs")
    parser.add_argument("layout", help=f"one of {', '.join(READERS)}")
    parser.add_argument("folder", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and its images")
    parser.add_argument("--test", type=str, nargs="*", default=[], help="patients to hold out; the last if none")
    parser.add_argument(
        "--sequence", type=str, default="", help="which image of a layout that has several: t1, ct1, ..."
    )
    options = parser.parse_args(given)
    print(convert_with_bar(options.layout, options.folder, options.out, options.test, options.sequence))


def _fit(given: list[str]) -> None:
    from whence.models import find_method, method_names
    from whence.train.fit import fit
    from whence.train.options import config_argument, fit_parser

    if not given or given[0].startswith("-"):
        if "--help" not in given and "-h" not in given:
            raise InputError("expected a method: whence fit METHOD --data pairs.csv --out RUN")
        names = ", ".join(method_names())
        print(f"usage: whence fit METHOD --data pairs.csv --out RUN\n\nMETHOD is one of {names}.")
        print("whence fit METHOD --help lists its options, and those of training, which all have.")
        raise SystemExit(0)
    method = find_method(given[0])
    parser = fit_parser(method)
    options = parser.parse_args(config_argument(given[1:], given[0]))
    model, train = parser.settings(options)
    print(fit(given[0], options.data, options.out, model, train))


def _predict(given: list[str]) -> None:
    from whence.train.predict import Said, predict
    from whence.train.run import sampling_of

    parser = _parser("predict")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("image", type=Path, help="image file, DICOM folder, or a pairs.csv")
    parser.add_argument("--out", type=Path, required=True, help="trace folder, or the folder of several")
    parser.add_argument("--split", type=str, default=None, help="rows of a table to predict; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of methods that sample")
    parser.add_argument("--samples", type=int, default=1, help="draws of a method that samples: mean and deviations")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--target", type=Path, default=None, help="second image of a method that compares two")
    parser.add_argument("--labels", type=Path, default=None, help="the image's labels, for a method that sees them")
    parser.add_argument("--mask", type=Path, default=None, help="the tumour's mask, for a method that looks at it")
    parser.add_argument("--patient", type=str, default=None, help="whose past cases are not to be shown")
    parser.add_argument("--case", type=str, default=None, help="the past case to show, instead of the likest")
    parser.add_argument("--cases", type=int, default=1, help="past cases to show in turn: mean and deviations")
    parser.add_argument("--bank", type=Path, default=None, help="past cases to show, instead of the run's own")
    parser.add_argument("--resection", type=Path, default=None, help="mask of what is to be cut out, as it is planned")
    parser.add_argument("--condition", type=str, nargs="+", default=[], help="what is known of a person, as age=65")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="options of sampling, as solver_steps=20")
    parser.add_argument("--evaluator", type=Path, default=None, help="run that judges novelty by its spatial error")
    options = parser.parse_args(given)
    past = (options.patient, options.case, options.resection, options.cases, options.bank)
    said = Said(*past, tuple(options.condition))
    chosen = (options.split, options.seed, options.device, options.target, options.evaluator)
    more = (options.samples, options.labels, options.mask, said, sampling_of(options.set))
    for folder in predict(options.run, options.image, options.out, *chosen, *more):
        print(folder)


def _atlas(given: list[str]) -> None:
    from whence.train.atlas import write_atlas
    from whence.train.run import sampling_of

    parser = _parser("atlas")
    parser.add_argument("run", type=Path, help="run folder of a method that is told conditions")
    parser.add_argument("--out", type=Path, required=True, help="trace folder, or the folder of a sweep")
    parser.add_argument("--condition", type=str, nargs="+", default=[], help="what is asked for, as age=65")
    parser.add_argument("--sweep", type=str, default=None, help="values of one condition in turn, as age=50:80:5")
    parser.add_argument("--samples", type=int, default=1, help="draws of each: mean and deviations")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; the same along a sweep")
    parser.add_argument("--image", type=Path, default=None, help="general atlas, if not the run's own")
    parser.add_argument("--labels", type=Path, default=None, help="labels of the general atlas, to be carried")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="options of sampling, as solver_steps=20")
    options = parser.parse_args(given)
    chosen = (options.sweep, options.samples, options.seed, options.image, options.labels, options.device)
    for folder in write_atlas(options.run, options.out, options.condition, *chosen, sampling_of(options.set)):
        print(folder)


def _error(given: list[str]) -> None:
    from whence.train.compare import write_error

    parser = _parser("error")
    parser.add_argument("run", type=Path, help="run folder of a method that estimates spatial error")
    parser.add_argument("moving", type=Path, help="image file or DICOM folder")
    parser.add_argument("fixed", type=Path, help="image file or DICOM folder, whose grid the map takes")
    parser.add_argument("--out", type=Path, required=True, help="folder of error.nii.gz, error.png and a trace")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps")
    options = parser.parse_args(given)
    mean = write_error(options.run, options.moving, options.fixed, options.out, options.device)
    print(f"mean spatial error in the body: {mean:.4f} of the intensity range; {options.out / 'error.nii.gz'}")


def _translate(given: list[str]) -> None:
    from whence.train.compare import write_translation

    parser = _parser("translate")
    parser.add_argument("run", type=Path, help="run folder of a method that translates")
    parser.add_argument("source", type=Path, help="image whose geometry stays")
    parser.add_argument("reference", type=Path, nargs="?", default=None, help="image whose appearance is taken")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps")
    options = parser.parse_args(given)
    print(write_translation(options.run, options.source, options.reference, options.out, options.device))


def _register(given: list[str]) -> None:
    from whence.train.register import Images, RegisterConfig, register_with_bar

    parser = _parser("register")
    parser.add_argument("fixed", type=Path, help="image to register to, or a pairs.csv (source to target)")
    parser.add_argument("moving", type=Path, nargs="?", default=None, help="image to register; none with a table")
    parser.add_argument("--out", type=Path, required=True, help="trace folder, or the folder of several")
    parser.add_argument("--mask", type=Path, default=None, help="where the fixed image is compared, on its grid")
    parser.add_argument("--moving-mask", type=Path, default=None, help="where the moving image is, on its grid")
    parser.add_argument("--start", type=Path, default=None, help="ITK affine to begin with, instead of finding one")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the pairs of a table")
    parser.add_argument("--scheduler", type=str, default=None, help="Dask cluster for a table, as tcp://host:8786")
    parser.add_class_arguments(RegisterConfig, sub_configs=False)
    options = parser.parse_args(given)
    config = RegisterConfig(**{name: getattr(options, name) for name in RegisterConfig.__dataclass_fields__})
    if options.fixed.suffix == ".csv":
        from whence.train.cohort import register_table

        if options.moving is not None or options.mask or options.moving_mask or options.start:
            raise InputError("a table of pairs names its images and masks itself; expected no others beside it")
        print(register_table(options.fixed, options.out, config, options.jobs, options.scheduler))
        return
    if options.moving is None:
        raise InputError("missing the moving image: whence register FIXED MOVING --out DIR")
    if options.scheduler is not None or options.jobs != 1:
        raise InputError("--jobs and --scheduler share the pairs of a table; expected a pairs.csv for them")
    images = Images(options.fixed, options.moving, options.mask, options.moving_mask, options.start)
    print(register_with_bar(images, options.out, config))


def _template(given: list[str]) -> None:
    from whence.train.register import RegisterConfig
    from whence.train.template import build_template

    parser = _parser("template")
    parser.add_argument("data", type=Path, help="pairs.csv of people")
    parser.add_argument("--out", type=Path, required=True, help="folder of template.nii.gz and of what it is made by")
    parser.add_argument("--column", type=str, default="target", help="column of the images; COLUMN_labels holds labels")
    parser.add_argument("--split", type=str, default="train", help="whose images: a split's of the table, or all")
    parser.add_argument("--rounds", type=int, default=4, help="how often all are registered to their mean")
    parser.add_argument("--start", type=Path, default=None, help="image to begin with, instead of the plain mean")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the people")
    parser.add_argument("--scheduler", type=str, default=None, help="Dask cluster, as tcp://host:8786")
    parser.add_class_arguments(RegisterConfig, sub_configs=False)
    options = parser.parse_args(given)
    config = RegisterConfig(**{name: getattr(options, name) for name in RegisterConfig.__dataclass_fields__})
    chosen = (options.rounds, options.column, options.start, options.jobs, options.scheduler, options.split)
    print(build_template(options.data, options.out, config, *chosen))


def _apply(given: list[str]) -> None:
    from whence.train.apply import apply

    parser = _parser("apply")
    parser.add_argument("field", type=Path, help="field, or ITK transform (to warp an image by an affine, give --like)")
    parser.add_argument("image", type=Path, help="image, labels or points")
    parser.add_argument("--like", type=Path, default=None, help="image whose grid the output takes")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--labels", action="store_true", help="the image holds integer labels")
    parser.add_argument("--points", action="store_true", help="the file holds points in mm")
    options = parser.parse_args(given)
    print(apply(options.field, options.image, options.out, options.like, options.labels, options.points))


def _evaluate(given: list[str]) -> None:
    from whence.train.evaluate import evaluate
    from whence.train.run import sampling_of
    from whence.train.table import show_summary

    parser = _parser("evaluate")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--data", type=Path, required=True, help="pairs.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables and traces")
    parser.add_argument("--split", type=str, default="test", help="rows to evaluate")
    parser.add_argument("--cases", type=int, default=6, help="how many traces to keep for the report")
    parser.add_argument("--seed", type=int, default=0, help="of methods that sample")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="options of sampling, as solver_steps=20")
    options = parser.parse_args(given)
    chosen = (options.split, options.cases, options.seed, options.device, sampling_of(options.set))
    summary = evaluate(options.run, options.data, options.out, *chosen)
    show_summary(summary, f"{options.run} on {options.split}")


def _report(given: list[str]) -> None:
    from whence.report import write_report

    parser = _parser("report")
    parser.add_argument("folder", type=Path, help="trace folder, or a folder of them")
    parser.add_argument("--out", type=Path, default=None, help="page to write; report.html in the folder if not given")
    parser.add_argument("--max-megabytes", type=float, default=60, help="size above which volumes are reduced")
    options = parser.parse_args(given)
    print(write_report(options.folder, options.out, options.max_megabytes))


def _bank(given: list[str]) -> None:
    from whence.train import bank

    if given and given[0] in ("-h", "--help"):
        words = "{" + ",".join(BANK_WORDS) + "}"
        print(f"usage: whence bank {words} ...\n\n{COMMANDS['bank']}\n\nwhence bank WORD --help explains each.")
        raise SystemExit(0)
    if not given or given[0] not in BANK_WORDS:
        asked = "nothing" if not given else repr(given[0])
        raise InputError(f"expected what to do with a bank, one of {', '.join(BANK_WORDS)}; got {asked}")
    word, given = given[0], given[1:]
    parser = _parser("bank", word)
    if word in ("build", "add"):
        parser.add_argument("data", type=Path, help="pairs.csv with the columns source, source_mask, and patient")
        parser.add_argument("--split", type=str, default=None, help="rows of the table; all if not given")
    if word == "build":
        parser.add_argument("--out", type=Path, required=True, help="folder of the bank")
        parser.add_class_arguments(bank.BankConfig, sub_configs=False)
        options = parser.parse_args(given)
        config = bank.BankConfig(**{name: getattr(options, name) for name in bank.BankConfig.__dataclass_fields__})
        bank.show_info(bank.build_bank(options.data, options.out, config, options.split).info())
        return
    parser.add_argument("--bank", type=Path, required=True, help="folder of the bank")
    if word == "add":
        parser.add_argument("--least", type=int, default=20, help="voxels of a mask below which it is no case")
        options = parser.parse_args(given)
        bank.show_info(bank.add_to_bank(options.bank, options.data, options.split, options.least).info())
    elif word == "remove":
        parser.add_argument("ids", type=str, nargs="+", help="cases to take out")
        options = parser.parse_args(given)
        bank.show_info(bank.remove_from_bank(options.bank, options.ids).info())
    elif word == "info":
        bank.show_info(bank.Bank(parser.parse_args(given).bank).info())
    else:
        parser.add_argument("mask", type=Path, help="mask of the query's tumour")
        parser.add_argument("--image", type=Path, default=None, help="the query's image, for retrieval by image")
        parser.add_argument("--count", type=int, default=15, help="cases to find")
        parser.add_argument("--patient", type=str, default=None, help="whose cases are not to be found")
        parser.add_argument("--strategy", type=str, default="tumour", help="tumour, image or random")
        parser.add_argument("--approximate", action="store_true", help="search the bank's index, if it has one")
        parser.add_argument("--slice", type=int, default=None, help="of a volume; that of most tumour if not given")
        parser.add_argument("--seed", type=int, default=0, help="of random retrieval")
        parser.add_argument("--out", type=Path, default=None, help="csv file to write as well")
        options = parser.parse_args(given)
        chosen = (options.count, options.patient, options.strategy, options.approximate, options.slice, options.seed)
        found = bank.query_bank(options.bank, options.mask, options.image, *chosen)
        bank.show_matches(found, f"{options.mask} in {options.bank}")
        if options.out is not None:
            bank.write_matches(found, options.out)


def _bench(given: list[str]) -> None:
    from whence.bench import TABLES
    from whence.bench.rows import run_table

    parser = _parser("bench")
    parser.add_argument("table", type=str, help=f"one of {', '.join(TABLES)}")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the table and its finished rows")
    parser.add_argument("--quick", action="store_true", help="a smoke version, in minutes")
    parser.add_argument("--rows", type=str, nargs="*", default=[], help="rows to measure, even if they are there")
    options = parser.parse_args(given)
    path = run_table(options.table, options.out / options.table, options.quick, options.rows)
    print(path.read_text(encoding="utf-8"))


def _methods(given: list[str]) -> None:
    from whence.models import method_names

    _parser("methods").parse_args(given)
    print("\n".join(method_names()))


_DOORS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "phantom": _phantom,
    "pairs": _pairs,
    "fit": _fit,
    "predict": _predict,
    "atlas": _atlas,
    "error": _error,
    "translate": _translate,
    "register": _register,
    "template": _template,
    "apply": _apply,
    "evaluate": _evaluate,
    "report": _report,
    "bank": _bank,
    "bench": _bench,
    "methods": _methods,
}

if __name__ == "__main__":
    sys.exit(main())
