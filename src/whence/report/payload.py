"""One trace as the page keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from whence.errors import InputError
from whence.field import Displacement, jacobian_determinant
from whence.metrics.body import body_mask
from whence.report.cases import finite
from whence.report.detail import Detail, field_error, shrink_field, shrink_image, shrink_labels
from whence.report.encoding import Blocks, encode_field, encode_image, encode_labels, placed, quantise_field
from whence.space import Volume
from whence.trace import Trace

# Distinct on grey and for the common colour deficiencies (after Okabe and Ito), then repeated lighter.
LABEL_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#7f9cff", "#b0e57c")
KNOWN_INFO = ("id", "method", "kind", "label_names", "plane", "statistics", "whence", "contract", "sides")


def encode_trace(trace: Trace, name: str, key: str, blocks: Blocks, detail: Detail) -> dict[str, Any]:
    """The description of a case for the page; its arrays go into ``blocks`` under names that begin with ``key``.

    ``trace.info`` may hold ``label_names`` (value to name), ``sides`` (what the page calls its ``source`` and its
    ``prediction``) and, for a 2D trace that is no axial slice, a ``plane`` of another name, which leaves the letters at
    the image's edges out.
    Raises InputError where source and prediction differ in dimension.
    """
    if trace.source.dims != trace.image.dims:
        raise InputError(
            f"expected source and prediction of one dimension in {name}; "
            f"got {trace.source.dims}D and {trace.image.dims}D"
        )
    bits = 16 if trace.image.dims == 2 else 8
    images: dict[str, Any] = {}
    windows: dict[str, Any] = {}
    groups = {
        "source": {"source": trace.source, "warped_source": trace.warped_source},
        "prediction": {"prediction": trace.image, **({"target": trace.target} if trace.target is not None else {})},
    }
    for group, members in groups.items():
        limits, windows[group] = _limits(list(members.values()), bits)
        for member, volume in members.items():
            small = shrink_image(volume, detail.image)
            images[member] = encode_image(blocks, f"{key}-{member}", small, limits, bits)

    extras, tables = [], []
    for label, extra in trace.extras.items():
        if isinstance(extra, Volume):
            if extra.dims != trace.image.dims:
                continue
            limits, window = _limits([extra], bits)
            small = shrink_image(extra, detail.image)
            entry = encode_image(blocks, f"{key}-extra{len(extras)}", small, limits, bits)
            side = "source" if extra.grid.same_as(trace.source.grid) and not _one_grid(trace) else "prediction"
            extras.append({"name": str(label), "side": side, "volume": entry, "window": window})
        elif isinstance(extra, (list, tuple)) and all(isinstance(row, dict) for row in extra):
            tables.append({"name": str(label), "rows": finite(list(extra)[:500])})

    images["novelty"] = encode_image(blocks, f"{key}-novelty", shrink_image(trace.novelty, detail.image), (0, 1), 8)
    bodies = {side: _body(volume) for side, volume in (("source", trace.source), ("prediction", trace.image))}
    for side, body in bodies.items():
        small = shrink_image(body, detail.image)
        images[f"{side}_body"] = encode_image(blocks, f"{key}-{side}-body", small, (0, 1), 8)
    inside = bodies["prediction"].tensor > 0
    folded, jacobian, jacobian_max = _log_jacobian(trace.displacement, inside)
    # One code below the range is kept for folded voxels, which have no logarithm.
    limits = (-1.04 * jacobian_max, 1.04 * jacobian_max)
    small = shrink_image(jacobian, detail.image)
    if detail.image == 1:
        small = small.with_tensor(torch.where(folded, torch.full_like(small.tensor, limits[0]), small.tensor))
    images["jacobian"] = encode_image(blocks, f"{key}-jacobian", small, limits, 8)

    legend: list[dict[str, Any]] = []
    if trace.labels is not None:
        small = shrink_labels(trace.labels, detail.image)
        images["labels"], kept = encode_labels(blocks, f"{key}-labels", small)
        legend = [_label(index, value, trace.info.get("label_names")) for index, value in enumerate(kept)]

    errors = []
    for part, displacement in (("displacement", trace.displacement), ("inverse", trace.inverse)):
        kept_field = shrink_field(displacement, detail.field)
        images[part] = encode_field(blocks, f"{key}-{part}", kept_field)
        errors.append(field_error(kept_field, quantise_field(kept_field)[1], displacement))

    return {
        "name": name,
        "method": str(trace.info.get("method", "")),
        "kind": str(trace.info.get("kind", "predicted")),
        "sides": {str(side): str(title) for side, title in trace.info.get("sides", {}).items()},
        "plane": str(trace.info.get("plane", "axial")),
        "dims": trace.image.dims,
        "channels": max(images["source"]["channels"], images["prediction"]["channels"]),
        "detail": {"image": detail.image, "field": detail.field},
        "precision_mm": max(errors),
        "moved_mm": max(float(np.percentile(trace.displacement.magnitude()[inside].numpy(), 99.9)), 1e-3),
        "jacobian_max": jacobian_max,
        "folded": float(folded.double().mean()),
        "grids": {"source": placed(trace.source.grid), "prediction": placed(trace.image.grid)},
        "images": images,
        "windows": windows,
        "labels": legend,
        "extras": extras,
        "tables": tables,
        "statistics": finite(trace.statistics()),
        "info": [[str(k), _in_words(v)] for k, v in trace.info.items() if k not in KNOWN_INFO],
    }


def _one_grid(trace: Trace) -> bool:
    return trace.source.grid.same_as(trace.image.grid)


def _limits(volumes: list[Volume], bits: int) -> tuple[tuple[float, float], list[float]]:
    """What is kept of the intensities, and the window first shown: both from all images of a group."""
    values = np.concatenate([v.tensor.detach().cpu().numpy().ravel() for v in volumes])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return (0.0, 1.0), [0.0, 1.0]
    # Eight bits are too few for a few bright voxels to stretch the range.
    ends = (0, 100) if bits == 16 else (0.02, 99.98)
    low, high = (float(v) for v in np.percentile(values, ends))
    window = [float(v) for v in np.percentile(values, (0.5, 99.8))]
    if not high > low:
        high = low + 1.0
    if not window[1] > window[0]:
        window = [low, high]
    return (low, high), window


def _body(volume: Volume) -> Volume:
    """1 inside the body, 0 in the air around it; 1 everywhere where no body can be told from its ground."""
    mask = body_mask(volume.tensor.detach().cpu()).float()
    return Volume(mask if float(mask.mean()) > 0.02 else torch.ones_like(mask), volume.grid)


def _log_jacobian(displacement: Displacement, inside: torch.Tensor) -> tuple[torch.Tensor, Volume, float]:
    """Where the map folds, log det J elsewhere, and the largest magnitude inside that is worth a colour."""
    determinant = jacobian_determinant(displacement).detach().cpu()
    folded = determinant <= 0
    logs = determinant.clamp_min(1e-6).log()
    counted = logs[~folded & inside].abs().numpy()
    top = min(max(float(np.percentile(counted, 99.8)), 0.05), 3.0) if counted.size else 1.0
    return folded, Volume(logs.clamp(-top, top), displacement.grid), top


def _label(index: int, value: int, names: Any) -> dict[str, Any]:
    colour = LABEL_COLOURS[index % len(LABEL_COLOURS)]
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    rounds = index // len(LABEL_COLOURS)
    rgb = [round(c + (255 - c) * min(0.25 * rounds, 0.6)) for c in rgb]
    known = names.get(str(value), names.get(value)) if isinstance(names, dict) else None
    return {"value": value, "name": str(known) if known else f"label {value}", "rgb": rgb}


def _in_words(value: Any) -> str:
    """A fact of a trace as it is read: of several, ``name value`` one after another."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    return ", ".join(map(_in_words, value)) if isinstance(value, (list, tuple)) else str(finite(value))
