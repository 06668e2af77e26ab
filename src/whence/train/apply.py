"""A field applied to an image, to labels or to points."""

from __future__ import annotations

from pathlib import Path

from whence.errors import InputError
from whence.field import Displacement, warp
from whence.io import Points, read, read_displacement, read_labels, read_points, write, write_labels
from whence.io import write_points as save_points
from whence.space import Grid, Volume


def apply(
    field: str | Path,
    image: str | Path,
    out: str | Path,
    like: str | Path | None = None,
    labels: bool = False,
    points: bool = False,
) -> Path:
    """Warp an image (or labels, or move points) by a field or an affine of ITK's, ours included.

    The output lies on the grid of ``like``, else on the field's own. Points go from the output to the
    source, as the field does: pass ``inverse.nii.gz`` for the other way.
    """
    field, image, out = Path(field), Path(image), Path(out)
    if labels and points:
        raise InputError("expected labels or points, not both")
    grid = None if like is None else read(like).grid
    if points:
        # An affine needs no grid of its own to move points; where it is sampled does not matter.
        found = read_points(image)
        transform = _transform(field, grid)
        if found.coordinates.shape[1] != transform.grid.dims:
            raise InputError(
                f"{image} holds {found.coordinates.shape[1]}D points; the field {field} is {transform.grid.dims}D"
            )
        save_points(Points(transform(found.coordinates), found.labels), out)
        return out
    transform = _transform(field, grid)
    if grid is not None:
        if grid.dims != transform.grid.dims:
            raise InputError(f"{like} is {grid.dims}D; the field {field} is {transform.grid.dims}D")
        transform = transform.resampled(grid)
    if labels:
        write_labels(warp(_same_dims(read_labels(image), transform, image), transform, mode="nearest"), out)
    else:
        write(warp(_same_dims(read(image), transform, image), transform), out)
    return out


def _transform(path: Path, grid: Grid | None) -> Displacement:
    try:
        return read_displacement(path)
    except InputError as error:
        if "no grid of its own" not in str(error):
            raise
        if grid is None:
            raise InputError(f"{path} is a transform without a grid of its own; name one with --like") from error
    return read_displacement(path, grid)


def _same_dims(volume: Volume, transform: Displacement, path: Path) -> Volume:
    if volume.dims != transform.grid.dims:
        raise InputError(f"{path} is {volume.dims}D; the field is {transform.grid.dims}D ({transform.grid})")
    return volume
