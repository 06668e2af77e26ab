"""Published layouts turned into pairs tables, one module a layout, imported when it is used.

A layout's module offers ``convert(folder, out, test, progress)``, which writes images and a
``pairs.csv`` under ``out`` and returns the table's path; where there are several sequences it names them as
``SEQUENCES`` and takes a ``sequence``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from whence.errors import InputError

READERS = {
    "brats-reg": "whence.data.readers.brats_reg",
    "brain-tumor-progression": "whence.data.readers.brain_tumor_progression",
    "lumiere": "whence.data.readers.lumiere",
    "open-ms": "whence.data.readers.open_ms",
}


def reader(layout: str) -> ModuleType:
    """The module of a layout; InputError for an unknown one."""
    if layout not in READERS:
        raise InputError(f"unknown layout {layout!r}; expected one of {', '.join(sorted(READERS))}")
    return import_module(READERS[layout])
