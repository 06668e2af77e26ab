"""Images with exactly known correspondences, one module a kind, imported when it is used.

A kind's module offers ``make_case(seed, index, size, dims)`` and ``columns(case)``: the case as a row of
the pairs table (see ``write``). A module may name further options of ``make_case`` in ``OPTIONS``, each with its
default and the values it may have, a function ``tables(rows)`` that gives the tables to write by name,
``label_names(**options)`` where the labels depend on them, and ``references()``, names of what every data set of the
kind holds besides, made by ``make_reference(name, size, dims)``; their rows are of the split ``reference``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from whence.errors import InputError

PHANTOMS = {
    "cohort": "whence.data.phantom.cohort",
    "domains": "whence.data.phantom.domains",
    "multimodal": "whence.data.phantom.multimodal",
    "surgery": "whence.data.phantom.surgery",
}


def phantom(kind: str) -> ModuleType:
    """The module of a kind; InputError for an unknown one."""
    if kind not in PHANTOMS:
        raise InputError(f"unknown phantom {kind!r}; expected one of {', '.join(sorted(PHANTOMS))}")
    return import_module(PHANTOMS[kind])


def phantom_options() -> dict[str, str]:
    """What each option of any kind is, in words: the kinds that have it, its values, the usual one."""
    found: dict[str, list[str]] = {}
    for kind in PHANTOMS:
        for name, (usual, values) in getattr(phantom(kind), "OPTIONS", {}).items():
            found.setdefault(name, []).append(f"{kind}: {', '.join(values)} ({usual})")
    return {name: "; ".join(words) for name, words in found.items()}


def write_phantom(*args, **kwargs):
    """Write a data set of phantoms; see ``whence.data.phantom.write.write_phantom``."""
    from whence.data.phantom.write import write_phantom as write

    return write(*args, **kwargs)


__all__ = ["PHANTOMS", "phantom", "phantom_options", "write_phantom"]
