"""Images and labels, read and written by extension."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from whence.errors import InputError
from whence.io import itk, nifti
from whence.io.atomic import extension
from whence.space import Volume

NIBABEL = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", *itk.PICTURES)
LARGEST_LABEL = 2**53
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha", *itk.PICTURES)


def read(path: str | Path) -> Volume:
    """An image as float32 (1, C, *spatial) on its grid in RAS mm.

    Reads NIfTI, NRRD, MetaImage, PNG, JPEG, a DICOM file, or a folder with one DICOM series. Array axes
    are the file's own (x first); nothing is reoriented.
    Raises InputError for a file that is missing, damaged, empty, of unknown format, without an
    invertible affine, or with NaN or infinite voxels.
    """
    path = Path(path)
    raw = _load(path)
    if raw.array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected real numbers; got voxels of type {raw.array.dtype}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(raw.array, dtype=np.float32)
    _require_finite(array, path)
    return Volume(torch.from_numpy(array)[None], raw.grid)


def read_labels(path: str | Path) -> Volume:
    """A segmentation as int32 (int64 where its labels need it), (1, C, *spatial), on its grid in RAS mm.

    Raises InputError as ``read`` does, and for values that are not whole numbers.
    """
    path = Path(path)
    raw = _load(path)
    array = raw.array
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected whole numbers; got voxels of type {array.dtype}")
    if array.dtype.kind == "f":
        _require_finite(array, path)
        whole = np.rint(array)
        # A scaled file gives back its labels only up to the rounding of its slope.
        off = np.abs(array - whole)
        if off.max() > 1e-3:
            worst = float(array.ravel()[int(off.argmax())])
            raise InputError(f"{path}: expected labels, whole numbers; got {worst:.6g}")
        array = whole
    if max(abs(float(array.min())), abs(float(array.max()))) > LARGEST_LABEL:
        raise InputError(f"{path}: expected labels of at most 2^53; got one that is too large")
    small = np.iinfo(np.int32).min <= array.min() and array.max() <= np.iinfo(np.int32).max
    kept = np.ascontiguousarray(array.astype(np.int32 if small else np.int64))
    return Volume(torch.from_numpy(kept)[None], raw.grid)


def write(volume: Volume, path: str | Path) -> None:
    """Write one image in the format of the extension: .nii, .nii.gz, .nrrd, .mha, .png or .jpg.

    Number types are kept (masks become uint8). A picture is 2D, keeps whole numbers that its bits can
    hold, stretches anything else to its full range, and loses the grid.
    Raises InputError for another extension or a place that cannot be written.
    """
    path = Path(path)
    kind = extension(path)
    if kind not in WRITABLE:
        raise InputError(f"cannot write {path}: unknown extension {kind!r}; expected one of {', '.join(WRITABLE)}")
    if volume.tensor.shape[0] != 1:
        raise ValueError(f"a file holds one image; got a batch of {volume.tensor.shape[0]}")
    tensor = volume.tensor[0].detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    array = tensor.numpy()
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if kind in itk.PICTURES:
        itk.save_picture(array, volume.grid, path)
    elif kind in NIBABEL:
        nifti.save(array, volume.grid, path)
    else:
        itk.save(array, volume.grid, path)


def write_labels(volume: Volume, path: str | Path) -> None:
    """Write a segmentation in the smallest of uint8, int16, int32 and int64 that holds its labels."""
    tensor = volume.tensor
    if tensor.is_floating_point():
        raise ValueError(f"labels are integers; got a tensor of type {tensor.dtype}")
    low, high = int(tensor.min()), int(tensor.max())
    for kind in (torch.uint8, torch.int16, torch.int32):
        limits = torch.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            write(volume.with_tensor(tensor.to(kind)), path)
            return
    write(volume.with_tensor(tensor.to(torch.int64)), path)


def _load(path: Path) -> nifti.Raw:
    if not path.exists():
        raise InputError(f"{path}: no such file; expected an image")
    if path.is_dir():
        raw = itk.load_series(path)
    elif path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; expected an image")
    elif extension(path) in NIBABEL:
        raw = nifti.load(path)
    elif extension(path) in ITK or _is_dicom(path):
        raw = itk.load(path)
    else:
        raise InputError(
            f"{path}: unknown format {extension(path)!r}; expected one of {', '.join((*NIBABEL, *ITK))} "
            "or a folder with a DICOM series"
        )
    return raw


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _require_finite(array: np.ndarray, path: Path) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(
            f"{path}: {int((~finite).sum())} of {array.size} voxels are NaN or infinite; expected finite numbers"
        )
