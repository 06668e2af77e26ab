"""The options of ``whence fit``: those of training and those of the method, one flat list."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from whence.errors import InputError
from whence.models import Method
from whence.recipes import recipe, recipe_names
from whence.train.parser import Parser
from whence.train.settings import TrainConfig

OWN = ("config", "data", "out")


class FitParser(Parser):
    """Parser of a method's options, which gives them back as the two dataclasses they belong to."""

    method: type[Method]

    def settings(self, options: Any) -> tuple[Any, TrainConfig]:
        """The method's config and the training's. Raises InputError for values that make no sense."""
        try:
            return _build(self.method.config_class, options), _build(TrainConfig, options)
        except ValueError as error:
            raise InputError(str(error)) from error


def fit_parser(method: type[Method]) -> FitParser:
    """Parser of ``whence fit METHOD``. Raises InputError for a method with an option that training has already."""
    taken = {*OWN, *(field.name for field in fields(TrainConfig))}
    for field in fields(method.config_class):
        if field.name in taken:
            raise InputError(
                f"method {method.name!r} has an option {field.name!r}, a name that training options hold; "
                f"expected another name in {method.config_class.__name__}"
            )
    parser = FitParser(prog=f"whence fit {method.name}", description=method.__doc__)
    parser.method = method
    parser.add_argument(
        "--config", action="config", help=f"YAML file or recipe: {', '.join(recipe_names(method.name)) or 'none yet'}"
    )
    parser.add_argument("--data", type=Path, required=True, help="pairs.csv")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_class_arguments(TrainConfig, sub_configs=False)
    parser.add_class_arguments(method.config_class, sub_configs=False)
    return parser


def read_recipe(name: str, method: type[Method], **changes: Any) -> tuple[Any, TrainConfig]:
    """The configs of a recipe, with some values changed."""
    parser = fit_parser(method)
    given = [f"--{key}={value}" for key, value in changes.items()]
    options = parser.parse_args(config_argument(["--data=.", "--out=.", "--config", name, *given], method.name))
    return parser.settings(options)


def config_argument(given: list[str], method: str) -> list[str]:
    """Arguments with ``--config NAME`` turned into the path of that recipe of the method, where it is no file."""
    found = list(given)
    for position, word in enumerate(found):
        value = None
        if word == "--config" and position + 1 < len(found):
            value, index, prefix = found[position + 1], position + 1, ""
        elif word.startswith("--config="):
            value, index, prefix = word.removeprefix("--config="), position, "--config="
        if value is None or Path(value).is_file():
            continue
        names = recipe_names(method)
        if value not in names:
            known = f"one of {method}'s recipes: {', '.join(names)}" if names else f"a recipe: {method} has none"
            raise InputError(f"--config names {value!r}, neither a file nor {known}")
        path = recipe(value)
        found[index] = f"{prefix}{path}"
    return found


def _build(config: type, options: Any) -> Any:
    return config(**{field.name: options[field.name] for field in fields(config)})
