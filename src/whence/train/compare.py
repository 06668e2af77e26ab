"""Runs that compare modalities, on files: error maps and translation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from whence.data.dataset import read_image
from whence.errors import InputError
from whence.io import replacing, write
from whence.models.evaluator import SpatialError, error_trace, spatial_error, translate
from whence.space import Volume
from whence.train.run import load


def write_error(run: str | Path, moving: str | Path, fixed: str | Path, out: str | Path, device: str = "cpu") -> float:
    """Write the spatial error of a pair into ``out``; returns its mean over the fixed image's body.

    ``error.nii.gz`` holds the map on the fixed image's grid, ``error.png`` a picture; the folder is a trace
    folder besides, which ``whence report`` shows.
    """
    evaluator = load(run, device)
    pair = _pair(moving, fixed)
    found = spatial_error(evaluator, *pair, names=(str(moving), str(fixed)))
    trace = error_trace(found, *pair, evaluator, id=Path(moving).name.split(".")[0], compared_with=Path(fixed).name)
    trace.save(out)
    write(found.map, Path(out) / "error.nii.gz")
    draw_error(found, trace.image, pair[1], Path(out) / "error.png")
    return found.mean


def write_translation(
    run: str | Path, source: str | Path, reference: str | Path | None, out: str | Path, device: str = "cpu"
) -> Path:
    """Write the source with the reference's appearance, on the source's grid; returns the file."""
    translator = load(run, device)
    if reference is None:
        write(translate(translator, read_image(source), names=(str(source), "")), out)
    else:
        write(translate(translator, *_pair(source, reference), names=(str(source), str(reference))), out)
    return Path(out)


def draw_error(found: SpatialError, moving: Volume, fixed: Volume, path: Path, largest: float | None = None) -> None:
    """Picture of a pair (1, C, *spatial) on one grid and its error map; ``largest`` ends the colours.

    Of a volume the middle axial slices, or the one slice it has; where they have a right, it is on the left.
    """
    from matplotlib.figure import Figure

    largest = largest or max(0.1, float(np.quantile(found.map.numpy(), 0.998)))
    figure = Figure(figsize=(10, 3.6), facecolor="black", layout="constrained")
    axes = figure.subplots(1, 3)
    shown = (
        ("moving", moving, "gray"),
        ("fixed", fixed, "gray"),
        (f"|E|, mean {found.mean:.3f}", found.map, "inferno"),
    )
    for axis, (title, volume, colours) in zip(axes, shown, strict=True):
        values, has_right = middle_slice(volume)
        top = largest if colours == "inferno" else float(np.quantile(values, 0.998))
        drawn = axis.imshow(values.T, origin="lower", cmap=colours, vmin=0 if colours == "inferno" else None, vmax=top)
        axis.set_title(title, color="white")
        axis.axis("off")
    if has_right:
        axes[0].text(0.01, 0.5, "R", color="white", transform=axes[0].transAxes)
    figure.colorbar(drawn, ax=axes[2]).ax.tick_params(colors="white")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def middle_slice(volume: Volume) -> tuple[np.ndarray, bool]:
    """The middle axial slice (2D) of a volume, or the one slice it has, and whether its first axis runs from R to L."""
    values = volume.grid.to_canonical(volume.tensor)[0, 0].numpy()
    across = values.shape.index(1) if 1 in values.shape else 2
    if across > 0:
        values = values[::-1]
    if values.ndim == 3:
        values = values.take(values.shape[across] // 2, axis=across)
    return values, across > 0


def _pair(first: str | Path, second: str | Path) -> tuple[Volume, Volume]:
    a, b = read_image(first), read_image(second)
    if a.dims != b.dims:
        raise InputError(f"{first} is {a.dims}D and {second} {b.dims}D; expected two images of the same dimensions")
    if a.tensor.shape[1] != b.tensor.shape[1]:
        raise InputError(
            f"{first} has {a.tensor.shape[1]} channels and {second} {b.tensor.shape[1]}; expected the same"
        )
    return a, b
