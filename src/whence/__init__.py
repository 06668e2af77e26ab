"""whence: predicted medical images that name, for every point, where in the source it came from.

The contract, true everywhere in this package:

    moved(p) = moving(phi(p)),   phi(p) = p + u(p),   for every point p of the output grid

``u`` lives on the output's grid and pulls back: ``phi`` answers *whence* (output point -> source
point), its inverse *whither* (source point -> output point). Points travel the other way than images.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Imported when first asked for, so that `import whence` costs nothing.
_PUBLIC = {
    "Displacement": "whence.field",
    "Grid": "whence.space",
    "InputError": "whence.errors",
    "Predictor": "whence.models.predictor",
    "Trace": "whence.trace",
    "Volume": "whence.space",
    "compose": "whence.field",
    "evaluate": "whence.train.evaluate",
    "exp": "whence.field",
    "fit": "whence.train.fit",
    "invert": "whence.field",
    "load": "whence.train.run",
    "read": "whence.io",
    "read_displacement": "whence.io",
    "read_labels": "whence.io",
    "read_points": "whence.io",
    "register": "whence.registration",
    "warp": "whence.field",
    "write": "whence.io",
    "write_displacement": "whence.io",
    "write_report": "whence.report",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'whence' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
