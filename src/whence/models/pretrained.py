"""Whether a run may be begun with what another has learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from whence.data.frame import Frame
from whence.errors import InputError


def checked(run: Any, place: str, own: Any, options: Sequence[str], frame: Frame | None = None) -> Any:
    """The method of a run (``Predictor``) in folder ``place``, of the same kind as ``own``, to begin with.

    Raises InputError where it is another method, sees other images, of another plane or of voxels that are not within
    a twentieth of those of ``frame``, or was trained with another of the ``options`` that shape its networks.
    """
    known = run.method
    if known.name != own.name:
        raise InputError(f"{place} is a run of {known.name!r}; expected one of {own.name!r} to begin with")
    images = [(known.dims, run.frame.source_channels), (own.dims, own.channels)]
    if images[0] != images[1]:
        found, wanted = (f"{dims}D images of {channels} channel(s)" for dims, channels in images)
        raise InputError(f"{place} sees {found}; expected a run of {wanted} to begin with")
    if frame is not None and run.frame.plane != frame.plane:
        raise InputError(f"{place} was trained on {run.frame.plane} slices; expected {frame.plane} ones, as here")
    if frame is not None and any(
        not math.isclose(a, b, rel_tol=0.05) for a, b in zip(run.frame.spacing, frame.spacing, strict=True)
    ):
        found, wanted = ("x".join(f"{s:g}" for s in each.spacing) for each in (run.frame, frame))
        raise InputError(f"{place} was trained on voxels of {found} mm; expected {wanted} mm, as here")
    for name in options:
        theirs, ours = (getattr(net.config, name) for net in (known, own))
        if theirs != ours:
            raise InputError(f"{place} was trained with {name} {theirs}; expected {ours}, as here, to begin with it")
    return known
