"""One file, one paper. Methods are found by name; other packages add theirs by an entry point.

[project.entry-points."whence.methods"]
mine = "my_package.my_model:MyMethod"
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from whence.errors import InputError
from whence.models.method import Method, Neighbours, Prediction, Retrieval

METHODS = {
    "diffdef": "whence.models.diffdef:DiffDef",
    "imse": "whence.models.imse:IMSE",
    "plasticine": "whence.models.plasticine:Plasticine",
    "postop": "whence.models.postop:Postop",
    "regnet": "whence.models.regnet:RegNet",
    "condtemplate": "whence.models.baselines.condtemplate:ConditionalTemplate",
    "cyclegan": "whence.models.baselines.cyclegan:CycleGAN",
    "reggan": "whence.models.baselines.reggan:RegGAN",
    "tracetrans": "whence.models.tracetrans:TraceTrans",
    "pix2pix": "whence.models.baselines.pix2pix:Pix2Pix",
}

__all__ = ["METHODS", "Method", "Neighbours", "Prediction", "Retrieval", "find_method", "method_names"]


def method_names() -> list[str]:
    """Names of every method at hand, our own and those of installed packages."""
    return sorted({*METHODS, *(point.name for point in entry_points(group="whence.methods"))})


def find_method(name: str) -> type[Method]:
    """Class of a method by name. Raises InputError for an unknown one."""
    if name in METHODS:
        module, attribute = METHODS[name].split(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group="whence.methods"):
        if point.name == name:
            return point.load()
    raise InputError(f"unknown method {name!r}; expected one of {', '.join(method_names())}")
