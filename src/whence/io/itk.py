"""NRRD, MetaImage, DICOM, PNG and JPEG through SimpleITK, as arrays with their grid."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InputError
from whence.io.atomic import replacing, unwritable
from whence.io.nifti import Raw, grid_of
from whence.space import Grid

PICTURES = (".png", ".jpg", ".jpeg")


def load(path: Path) -> Raw:
    """Image of a file that SimpleITK reads; array axis 0 is ITK's x, so that a PNG's is its width.

    ITK's LPS placement is turned to RAS; the alpha channel of a picture is dropped.
    """
    import SimpleITK as sitk  # noqa: N813

    # A JPEG decoder fills what is missing with grey and says nothing.
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in path.read_bytes()[-1024:]:
        raise InputError(f"{path}: truncated, its end marker is missing; expected a whole file")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable image ({brief(error)}); expected a whole file") from error
    raw = from_itk(image, path)
    if path.suffix.lower() in PICTURES and raw.array.shape[0] in (2, 4):
        return Raw(raw.array[:-1], raw.grid)
    return raw


def load_series(folder: Path) -> Raw:
    """The one DICOM series of a folder, its slices sorted by position.

    Raises InputError for no series, for several (naming them), and for slices that are missing.
    """
    import SimpleITK as sitk  # noqa: N813

    found = list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    if not found:
        raise InputError(f"{folder}: no DICOM series in this folder; expected one")
    if len(found) > 1:
        raise InputError(f"{folder}: {len(found)} DICOM series in one folder ({', '.join(found)}); expected one")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), found[0])
    if len(names) == 1:
        return load(Path(names[0]))
    try:
        _check_spacing(folder, names)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{folder}: not a readable DICOM series ({brief(error)})") from error
    return from_itk(image, folder)


def save(array: np.ndarray, grid: Grid, path: Path) -> None:
    """Write an array (C, *spatial) in the format of the extension."""
    import SimpleITK as sitk  # noqa: N813

    image = to_itk(array, grid)
    with replacing(path) as partial:
        # libjpeg ends the whole process when the disk is full.
        if path.suffix.lower() in (".jpg", ".jpeg") and shutil.disk_usage(partial.parent).free < array.nbytes + 65536:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            sitk.WriteImage(image, str(partial), useCompression=path.suffix.lower() not in PICTURES)
        except RuntimeError as error:
            raise unwritable(path, error) from error


def save_picture(array: np.ndarray, grid: Grid, path: Path) -> None:
    """Write a 2D array (1 or 3, x, y) as PNG or JPEG.

    Whole numbers in 0..255 are kept in 8 bits, and in a PNG those in 0..65535 in 16 bits; anything else
    is stretched linearly from its range to the full 16 bits (PNG) or 8 bits (JPEG). A picture holds no
    placement: the grid is lost.
    """
    if grid.dims != 2 or array.shape[0] not in (1, 3):
        raise InputError(
            f"cannot write {path}: a picture is 2D with 1 or 3 channels; got {tuple(array.shape)} (channels first)"
        )
    top = 255 if path.suffix.lower() != ".png" else 65535
    low, high = float(array.min()), float(array.max())
    whole = bool((array == np.rint(array)).all()) if array.dtype.kind == "f" else True
    if not (whole and low >= 0 and high <= top):
        array = np.rint((array.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny) * top)
        high = top
    save(array.astype(np.uint8 if high <= 255 else np.uint16), Grid.regular(grid.shape), path)


def from_itk(image: Any, path: Path) -> Raw:
    """A SimpleITK image as an array (C, *spatial) on a RAS grid."""
    import SimpleITK as sitk  # noqa: N813

    size, channels = image.GetSize(), image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayFromImage(image)
    if channels == 1:
        array = array[..., None]
    dims = len(size)
    array = array.transpose(dims, *reversed(range(dims)))
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = np.asarray(image.GetDirection()).reshape(dims, dims) * np.asarray(image.GetSpacing())
    affine[:dims, dims] = image.GetOrigin()
    # Subtracted, not negated: a picture's affine shall show no -0.0.
    affine[:2] = 0.0 - affine[:2]
    if dims == 4 and channels == 1:
        array = array[0].transpose(3, 0, 1, 2)
        size, affine = size[:3], affine[np.ix_([0, 1, 2, 4], [0, 1, 2, 4])]
    if len(size) not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image; got {dims} axes {tuple(size)}")
    return Raw(np.ascontiguousarray(array), grid_of(path, tuple(size), affine))


def to_itk(array: np.ndarray, grid: Grid) -> Any:
    """An array (C, *spatial) on a RAS grid as a SimpleITK image, a vector image for several channels.

    The vectors of a displacement must already be in LPS mm.
    """
    import SimpleITK as sitk  # noqa: N813

    dims = grid.dims
    turned = np.ascontiguousarray(array.transpose(*reversed(range(1, dims + 1)), 0))
    vector = array.shape[0] > 1
    image = sitk.GetImageFromArray(turned if vector else turned[..., 0], isVector=vector)
    place(image, grid)
    return image


def place(image: Any, grid: Grid) -> None:
    """Give a SimpleITK image (or a resampling reference) the placement of a grid, in LPS."""
    affine = grid.affine.copy()
    affine[:2] *= -1
    dims, spacing = grid.dims, grid.spacing
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:dims, dims].tolist())
    image.SetDirection((affine[:dims, :dims] / spacing).ravel().tolist())


def _check_spacing(folder: Path, names: list[str]) -> None:
    """Refuse a stack with slices missing: ITK would space the rest evenly and misplace the anatomy."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    heights = []
    for name in names:
        reader.SetFileName(name)
        reader.ReadImageInformation()
        direction = np.asarray(reader.GetDirection())
        origin = np.asarray(reader.GetOrigin())
        if len(origin) != 3:
            return
        heights.append(float(origin @ direction.reshape(3, 3)[:, 2]))
    steps = np.abs(np.diff(heights))
    if len(steps) and steps.max() > 1.1 * max(float(np.median(steps)), 1e-6):
        where = int(steps.argmax())
        raise InputError(
            f"{folder}: slices are {np.median(steps):.3g} mm apart but {steps.max():.3g} mm between "
            f"{Path(names[where]).name} and {Path(names[where + 1]).name}; expected a series without gaps"
        )


def brief(error: Exception) -> str:
    """The last line of an ITK error, which says what went wrong, without memory addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\(0x[0-9a-f]+\)", "", lines[-1] if lines else type(error).__name__)[:160]
