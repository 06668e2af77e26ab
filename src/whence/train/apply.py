"""A field applied to an image, to labels or to points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from whence.errors import InputError
from whence.field import Displacement, warp
from whence.io import Points, read, read_affine, read_displacement, read_labels, read_points, write, write_labels
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
    source, as the field does: pass ``inverse.nii.gz`` for the other way. An affine moves them without
    ``like``; a transform that has no grid and is no affine moves those within ``like`` only.
    """
    field, image, out = Path(field), Path(image), Path(out)
    if labels and points:
        raise InputError("expected labels or points, not both")
    grid = None if like is None else read(like).grid
    if points:
        found = read_points(image)
        save_points(Points(_moved(found.coordinates, field, image, grid), found.labels), out)
        return out
    transform = _own_field(field) or _sampled(field, grid)
    if grid is not None:
        if grid.dims != transform.grid.dims:
            raise InputError(f"{like} is {grid.dims}D; the field {field} is {transform.grid.dims}D")
        transform = transform.resampled(grid)
    if labels:
        write_labels(warp(_same_dims(read_labels(image), transform, image), transform, mode="label"), out)
    else:
        write(warp(_same_dims(read(image), transform, image), transform), out)
    return out


def _moved(points: np.ndarray, field: Path, image: Path, grid: Grid | None) -> np.ndarray:
    matrix = read_affine(field)
    if matrix is not None:
        dims = len(matrix) - 1
        _check_points(points, dims, field, image)
        return points @ matrix[:dims, :dims].T + matrix[:dims, dims]
    own = _own_field(field)
    transform = own or _sampled(field, grid)
    _check_points(points, transform.grid.dims, field, image)
    if own is None:
        # A field goes on with its border; the transform that was sampled would not.
        outside = int((~transform.grid.contains(points, margin=1e-3)).sum())
        if outside:
            raise InputError(
                f"{outside} of {len(points)} points of {image} lie outside the grid of --like, where {field} is "
                "sampled; expected an image that holds them all"
            )
    return transform(points)


def _check_points(points: np.ndarray, dims: int, field: Path, image: Path) -> None:
    if points.shape[1] != dims:
        raise InputError(f"{image} holds {points.shape[1]}D points; the field {field} is {dims}D")


def _own_field(path: Path) -> Displacement | None:
    """The field of a file on its own grid; None for a transform that has none."""
    try:
        return read_displacement(path)
    except InputError as error:
        if "no grid of its own" not in str(error):
            raise
    return None


def _sampled(path: Path, grid: Grid | None) -> Displacement:
    if grid is None:
        raise InputError(f"{path} is a transform without a grid of its own; name one with --like")
    return read_displacement(path, grid)


def _same_dims(volume: Volume, transform: Displacement, path: Path) -> Volume:
    if volume.dims != transform.grid.dims:
        raise InputError(f"{path} is {volume.dims}D; the field is {transform.grid.dims}D ({transform.grid})")
    return volume
