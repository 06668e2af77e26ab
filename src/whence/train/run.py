"""The run folder: config.yaml, model.safetensors, checkpoints/, metrics.csv, environment.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from whence import __version__
from whence.data.frame import Frame
from whence.errors import InputError
from whence.io import load_json, load_weights, load_yaml, save_json, save_weights, save_yaml
from whence.models import Method, find_method
from whence.models.attributes import Attributes
from whence.models.predictor import Predictor
from whence.retrieval import Bank
from whence.train.settings import TrainConfig

# The case bank of a run whose method looks at past cases.
BANK = "bank"
# What the networks of a run are that came from elsewhere.
NETWORKS = "networks.json"
# What the conditions of the rows were that a run was trained on.
ATTRIBUTES = "attributes.json"
# Settings that a run may be taken up with others of: they change how fast it is, not what it learns.
FREE = ("threads",)


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run, as it stands in config.yaml.

    ``pairs`` is what the table held: how many rows of each split, and a hash of their files' names and sizes.
    """

    method: str
    model: Any
    train: TrainConfig
    frame: Frame
    data: str
    pairs: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML."""
        return {
            "whence": __version__,
            "method": self.method,
            "data": self.data,
            "pairs": self.pairs,
            "model": _plain(asdict(self.model)),
            "train": _plain(asdict(self.train)),
            "frame": self.frame.to_dict(),
        }

    @classmethod
    def from_file(cls, path: Path) -> RunConfig:
        """Read config.yaml. Raises InputError where it is not one of ours."""
        content = load_yaml(path)
        try:
            method = find_method(content["method"])
            return cls(
                content["method"],
                method.config_class(**content["model"]),
                TrainConfig(**content["train"]),
                Frame(**content["frame"]),
                content["data"],
                content.get("pairs", ""),
            )
        except KeyError as error:
            raise InputError(f"{path} is not the config of a whence run: it has no {error}") from error
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} is not the config of a whence run: {error}") from error

    def build(self, networks: dict[str, Any] | None = None, attributes: Attributes | None = None) -> Method:
        """The method with fresh weights drawn from the run's seed, of ``networks`` where a run keeps what they are.

        ``attributes``: what those of the training rows were, of a method that is told any.
        Raises InputError where options make no network.
        """
        given = {"networks": networks, "attributes": attributes}
        frame, more = self.frame, {name: value for name, value in given.items() if value is not None}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.train.seed)
            try:
                channels = (frame.source_channels, frame.target_channels)
                method = find_method(self.method)(self.model, frame.dims, *channels, **more)
                method.optimizers()  # which refuse rates out of range
                return method
            except (ValueError, TypeError, IndexError, ZeroDivisionError, RuntimeError) as error:
                raise InputError(f"these options make no {self.method} network: {error}") from error


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Settings in which two runs differ, each as ``name: old -> new``."""
    found = []
    before, after = old.to_dict(), new.to_dict()
    for section in ("method", "data", "pairs", "model", "train", "frame"):
        a, b = before[section], after[section]
        if not isinstance(a, dict) or not isinstance(b, dict):
            a, b = {section: a}, {section: b}
        names = [key for key in {**a, **b} if key not in FREE]
        found += [f"{key}: {a.get(key)} -> {b.get(key)}" for key in names if a.get(key) != b.get(key)]
    return found


def write_config(config: RunConfig, folder: Path) -> None:
    """Write config.yaml and environment.json."""
    # config.yaml is what makes a folder a run: it comes last.
    save_json(_environment(), folder / "environment.json")
    save_yaml(config.to_dict(), folder / "config.yaml")


def save_model(method: Method, folder: Path) -> None:
    """Write the weights as model.safetensors, what networks from elsewhere are and what conditions were."""
    if networks := method.networks():
        save_json(networks, folder / NETWORKS)
    if method.attributes is not None:
        save_json(method.attributes.to_dict(), folder / ATTRIBUTES)
    save_weights({name: value.detach().cpu() for name, value in method.state_dict().items()}, model_path(folder))


def check_folder(out: Path) -> None:
    """Raise InputError where an output's folder cannot be made or written to; makes none."""
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"cannot write to {out}: {there} is a file; expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {out}: no permission in {there}")


def forget_page(out: Path) -> None:
    """Remove the page of a folder: it tells of what has been replaced."""
    (out / "report.html").unlink(missing_ok=True)


# What says of a folder what it holds.
_SIGNS = {"trace.json": "a trace", "bank.json": "a case bank", "config.yaml": "a run", "phantom.yaml": "a data set"}


def check_alone(out: Path, own: str = "") -> None:
    """Raise InputError where a folder holds another of our things than ``own``, the file by which its kind is known."""
    for sign, words in _SIGNS.items():
        if sign != own and (out / sign).is_file():
            raise InputError(f"{out} holds {words} ({sign}); choose another --out")


def model_path(folder: Path) -> Path:
    return folder / "model.safetensors"


def load(folder: str | Path, device: str = "cpu", sampling: Mapping[str, Any] | None = None) -> Predictor:
    """Load a finished run for prediction.

    ``sampling``: options of the method by which it draws, such as ``solver_steps``, in place of the run's.
    Raises InputError where the folder is no run, is not finished, or its weights are of another shape.
    Nothing is unpickled.
    """
    folder = Path(folder)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} is not at hand; expected {' or '.join(_devices())}") from error
    if not (folder / "config.yaml").is_file():
        raise InputError(f"expected a run folder with a config.yaml; got {folder}")
    config = RunConfig.from_file(folder / "config.yaml")
    if not model_path(folder).is_file():
        raise InputError(f"{folder} has no model.safetensors: its training has not finished; run the same fit again")
    networks = load_json(folder / NETWORKS) if (folder / NETWORKS).is_file() else None
    known = Attributes.from_dict(load_json(folder / ATTRIBUTES)) if (folder / ATTRIBUTES).is_file() else None
    if known is None and find_method(config.method).conditions(config.model):
        raise InputError(
            f"{folder} has no {ATTRIBUTES}, which says what its conditions mean; expected the one that fit wrote"
        )
    method = config.build(networks, known)
    weights = load_weights(model_path(folder))
    expected = method.state_dict()
    wrong = [n for n in {**expected, **weights} if _shape(expected, n) != _shape(weights, n)]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{model_path(folder)} is not of this {config.method} run: weight {name!r} is {_shape(weights, name)}, "
            f"expected {_shape(expected, name)}"
        )
    method.load_state_dict(weights)
    if sampling:
        method.config = _drawing(method, sampling)
    bank = None if method.retrieval(config.model) is None else Bank(folder / BANK)
    return Predictor(method.to(device).eval(), config.frame, bank=bank, columns=config.train.columns)


def sampling_of(words: Sequence[str]) -> dict[str, Any]:
    """Options by name of words like ``solver_steps=20``. Raises InputError for another word."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"expected an option of sampling as solver_steps=20; got {word!r}")
        found[name.strip()] = yaml.safe_load(value)
    return found


def _drawing(method: Method, sampling: Mapping[str, Any]) -> Any:
    """A method's config with other options of sampling."""
    for name, value in sampling.items():
        if name not in method.sampling:
            wanted = f"one of {', '.join(method.sampling)}" if method.sampling else "none, it has one answer"
            raise InputError(f"{method.name} cannot be sampled with another {name!r}; expected {wanted}")
        kinds, own = (int, float), getattr(method.config, name)
        if isinstance(value, kinds) != isinstance(own, kinds) or (isinstance(own, int) and not isinstance(value, int)):
            raise InputError(f"{name} is {value!r}; expected a value as {own!r}")
    try:
        return replace(method.config, **sampling)
    except (TypeError, ValueError) as error:
        raise InputError(f"{method.name} cannot be sampled so: {error}") from error


def _devices() -> list[str]:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return ["cpu", *(name for name, there in found.items() if there)]


def _shape(weights: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _environment() -> dict[str, Any]:
    import lightning
    import monai
    import numpy

    return {
        "whence": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "monai": monai.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
