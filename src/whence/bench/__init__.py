"""One file, one table of the docs; ``whence bench TABLE`` makes it anew.

A table's module offers ``title(quick)``, ``notes(quick)``, ``rows(quick)`` and ``measure(row, data, work)``, which
returns the row's cells by column name; ``data`` is a folder that rows share, ``work`` the row's own. It may
offer ``summary(frame)``, a smaller table that is put before it, and ``draw(frame, out)``, which makes the table's
picture.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from whence.errors import InputError

TABLES = {
    "core": "whence.bench.core",
    "training": "whence.bench.training",
    "imse": "whence.bench.imse",
    "tracetrans": "whence.bench.tracetrans",
    "registration": "whence.bench.registration",
    "plasticine": "whence.bench.plasticine",
    "plasticine_real": "whence.bench.plasticine_real",
    "bank": "whence.bench.bank",
    "postop": "whence.bench.postop",
    "diffdef": "whence.bench.diffdef",
}


def find_table(name: str) -> ModuleType:
    """The module of a table; InputError for an unknown one."""
    if name not in TABLES:
        raise InputError(f"unknown table {name!r}; expected one of {', '.join(TABLES)}")
    return import_module(TABLES[name])
