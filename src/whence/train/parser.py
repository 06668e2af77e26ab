"""A parser whose complaints are one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from whence.errors import InputError
from whence.io import load_yaml

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "Path": "a path", "str": "text"}


class Parser(ArgumentParser):
    """Parser that raises InputError instead of printing its usage."""

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:  # type: ignore[override]
        """As jsonargparse does, after a look at the settings files that are named.

        Files are read before the options, wherever they stand: what is written out wins.
        """
        words, files, rest = iter(args or []), [], []
        for word in words:
            name, equals, value = word.partition("=")
            if name != "--config":
                rest.append(word)
                continue
            value = value if equals else next(words, "")
            if value:
                load_yaml(value)
            files += ["--config", value]
        return super().parse_args([*files, *self._gathered(rest)], *more, **options)

    def _gathered(self, words: Sequence[str]) -> list[str]:
        """The words, those behind a repeated option of several values all behind the first."""
        several = {name for action in self._actions if action.nargs in ("+", "*") for name in action.option_strings}
        groups: list[list[str]] = [[]]
        first: dict[str, list[str]] = {}
        group = groups[0]
        for word in words:
            name, equals, value = word.partition("=")
            if name in first:
                group = first[name]
            elif word.startswith("--"):
                group = [name] if name in several else [word]
                groups.append(group)
                if name in several:
                    first[name] = group
            else:
                group.append(word)
            if name in several and equals:
                group.append(value)
        return [word for group in groups for word in group]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self._sentence(" ".join(message.split()))) from ex

    def _sentence(self, message: str) -> str:
        unknown = re.search(r"unrecognized arguments: (\S+)|Option '([^']+)' is not accepted", message)
        if unknown:
            return self._unknown((unknown[1] or f"--{unknown[2]}").split("=")[0])
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            names = ", ".join(self._spelt(name) for name in missing[1].split(", "))
            return f"missing {names}; {self.prog} --help explains each"
        value = re.search(r"(?:Got|Given) value: (.*)$", message)
        option = re.match(r'Parser key "([^"]+)":', message)
        if option and value:
            expected = [
                self._kind(kind) for kind in re.findall(r"Expected an? (.*?)(?=\. Got| - Expected| Given)", message)
            ]
            wanted = " or ".join(kind for kind in expected if kind != "nothing") or "another value"
            return f"{self._spelt(option[1])} got {value[1]!r}; expected {wanted}"
        return f"{message}; {self.prog} --help explains each option"

    def _spelt(self, name: str) -> str:
        """An option as it is written on the command line; a positional argument as it is."""
        found = [action.option_strings for action in self._actions if action.dest == name]
        return found[0][-1] if found and found[0] else name

    def _unknown(self, given: str) -> str:
        if not given.startswith("-"):
            return f"one argument too many, {given!r}; {self.prog} --help lists what is expected"
        close = get_close_matches(given, [name for action in self._actions for name in action.option_strings], n=1)
        hint = f"did you mean {close[0]}?" if close else f"{self.prog} --help lists them"
        return f"unknown option {given!r}; {hint}"

    @staticmethod
    def _kind(text: str) -> str:
        choices = re.search(r"Literal\[(.*)\]", text)
        if choices:
            return f"one of {choices[1]}"
        if "NoneType" in text:
            return "nothing"
        if "tuple" in text or "list" in text.lower():
            return "a list such as [1, 2]"
        name = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).strip()
        return _KINDS.get(name, name)
