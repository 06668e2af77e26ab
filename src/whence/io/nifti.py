"""NIfTI (and the other formats nibabel reads) as arrays with their grid."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InputError
from whence.io.atomic import extension, replacing
from whence.space import Grid

VECTOR = 1007
RAS_DISPLACEMENT = 1006
NIFTI2_HEADER = 540


@dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds: an array (C, *spatial) in its own number type, and its grid."""

    array: np.ndarray
    grid: Grid


def load(path: Path) -> Raw:
    """Image of a file: intensities scaled by scl_slope and scl_inter, channels first.

    The affine is the sform where it has a code, else the qform, else the voxel sizes (nibabel's rule;
    ITK prefers a scanner qform to an atlas sform, which matters only where a file contradicts itself).
    A header of two axes is a 2D image placed by the x-y part of its affine, as ITK places it; a volume
    of one slice stays a volume. Further axes of one are dropped, one further axis becomes channels.
    """
    array, affine, intent = _open(path)
    if array.dtype.names:
        names = [n for n in array.dtype.names if n != "A"]
        array = np.stack([array[n] for n in names], axis=-1)
        spatial = array.ndim - 1
    else:
        spatial = min(array.ndim, 3)
        # ITK writes a 2D image of several components with singleton third and fourth axes.
        if array.ndim == 5 and intent == VECTOR and array.shape[2] == array.shape[3] == 1:
            array, spatial = array[:, :, 0, 0], 2
    extra = [n for n in array.shape[spatial:] if n != 1]
    if spatial < 2 or spatial > 3 or len(extra) > 1:
        raise InputError(
            f"{path}: expected a 2D or 3D image with at most one axis of channels; got shape {array.shape}"
        )
    array = array.reshape(*array.shape[:spatial], extra[0] if extra else 1)
    return Raw(np.moveaxis(array, -1, 0), _grid(path, array.shape[:spatial], affine))


def save(array: np.ndarray, grid: Grid, path: Path) -> None:
    """Write an array (C, *spatial) with sform and qform.

    One channel is a plain image. Several are a fourth axis in 3D; in 2D a vector (intent 1007), which
    ITK and this package read as a 2D image of several components.
    """
    stacked = np.moveaxis(array, 0, -1)
    if array.shape[0] == 1:
        _write(stacked[..., 0], grid, path, intent=0)
    elif grid.dims == 3:
        _write(stacked, grid, path, intent=0)
    else:
        _write(stacked[:, :, None, None, :], grid, path, intent=VECTOR)


def load_vectors(path: Path) -> Raw:
    """Displacement vectors (D, *spatial) in LPS mm from a 5-D vector file.

    Intent 1007 (ITK, ANTs) holds LPS; intent 1006 holds RAS and is turned, as ITK does.
    """
    array, affine, intent = _open(path)
    if array.ndim != 5 or array.shape[3] != 1 or array.shape[4] not in (2, 3) or array.dtype.names:
        raise InputError(
            f"{path}: expected a displacement field in ITK's layout, shape (x, y, z, 1, 2 or 3); got {array.shape}"
        )
    dims = array.shape[4]
    if dims == 2 and array.shape[2] != 1:
        raise InputError(f"{path}: expected 3 components for a field of shape {array.shape[:3]}; got 2")
    spatial = array.shape[:dims]
    vectors = np.moveaxis(array.reshape(*spatial, dims), -1, 0).astype(np.float64)
    if intent == RAS_DISPLACEMENT:
        vectors[:2] *= -1
    return Raw(vectors, _grid(path, spatial, affine))


def save_vectors(vectors: np.ndarray, grid: Grid, path: Path) -> None:
    """Write displacement vectors (D, *spatial) in LPS mm as ITK does: 5-D, intent 1007, float32."""
    spatial = (*grid.shape, 1)[:3]
    array = np.moveaxis(vectors, 0, -1).reshape(*spatial, 1, grid.dims)
    _write(array.astype(np.float32), grid, path, intent=VECTOR)


def _open(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    import nibabel

    try:
        image: Any = _unpacked(path) if extension(path) == ".nii.gz" else nibabel.load(path)
        array = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise InputError(f"{path}: not a readable image ({_brief(error)}); expected a whole NIfTI file") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path}: truncated or damaged ({_brief(error)}); expected a whole NIfTI file") from error
    intent = int(image.header["intent_code"]) if "intent_code" in image.header else 0
    return array, affine, intent


def _unpacked(path: Path) -> Any:
    """Image of a gzipped file read to its end: nibabel alone stops before the checksum and misses damage."""
    import nibabel

    with gzip.open(path) as file:
        content = file.read()
    header_size = content[:4]
    second = header_size in (NIFTI2_HEADER.to_bytes(4, "little"), NIFTI2_HEADER.to_bytes(4, "big"))
    return (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(content)


def _grid(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    keep = [*range(len(shape)), 3]
    return grid_of(path, shape, affine[np.ix_(keep, keep)])


def grid_of(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    """Grid of a file, its ValueError re-said with the file's name."""
    if 0 in shape:
        raise InputError(f"{path}: the image is empty (shape {tuple(shape)}); expected at least one voxel")
    try:
        return Grid(tuple(shape), affine)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected an image placed by an invertible affine") from error


def _write(array: np.ndarray, grid: Grid, path: Path, intent: int) -> None:
    import nibabel

    dims = grid.dims
    affine = np.eye(4)
    affine[:dims, :dims] = grid.affine[:dims, :dims]
    affine[:dims, 3] = grid.affine[:dims, dims]
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header["intent_code"] = intent
    image.set_sform(affine, code=1)
    # A qform cannot shear: with one, ITK would place a sheared grid wrongly; without, it says that it cannot.
    image.set_qform(affine if is_orthogonal(grid) else None, code=1 if is_orthogonal(grid) else 0)
    with replacing(path) as partial:
        nibabel.save(image, partial)


def is_orthogonal(grid: Grid, tolerance: float = 1e-4) -> bool:
    """Whether the axes of a grid stand at right angles."""
    axes = grid.affine[: grid.dims, : grid.dims] / grid.spacing
    return bool(np.abs(axes.T @ axes - np.eye(grid.dims)).max() < tolerance)


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
