"""A parser whose complaints are one sentence."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NoReturn

from jsonargparse import ArgumentParser

from whence.errors import InputError

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "Path": "a path", "str": "text"}


class Parser(ArgumentParser):
    """Parser that raises InputError instead of printing its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self._sentence(" ".join(message.split()))) from ex

    def _sentence(self, message: str) -> str:
        unknown = re.search(r"unrecognized arguments: (\S+)|Option '([^']+)' is not accepted", message)
        if unknown:
            return self._unknown((unknown[1] or f"--{unknown[2]}").split("=")[0])
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            return f"missing {missing[1]}; {self.prog} --help explains each"
        value = re.search(r"(?:Got|Given) value: (.*)$", message)
        option = re.match(r'Parser key "([^"]+)":', message)
        if option and value:
            expected = [
                self._kind(kind) for kind in re.findall(r"Expected an? (.*?)(?=\. Got| - Expected| Given)", message)
            ]
            wanted = " or ".join(kind for kind in expected if kind != "nothing") or "another value"
            return f"--{option[1]} got {value[1]!r}; expected {wanted}"
        return f"{message}; {self.prog} --help explains each option"

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
