"""Displacement fields and affine transforms in ITK's convention: LPS mm, output point to source point."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whence.errors import InputError
from whence.field import Displacement
from whence.io import itk, nifti
from whence.io.atomic import extension, replacing, unwritable
from whence.space import Grid

NIFTI = (".nii", ".nii.gz")
VECTOR_IMAGES = (".mha", ".mhd", ".nrrd", ".nhdr")
TRANSFORMS = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")
WRITABLE = (".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".hdf5", ".tfm")


def read_displacement(path: str | Path, grid: Grid | None = None) -> Displacement:
    """A displacement field on its own grid, or resampled to ``grid``.

    Reads what ITK, ANTs and Slicer write: 5-D vector NIfTI (intent 1007 in LPS, 1006 in RAS), a vector
    image (.mha, .nrrd), or an ITK transform file; one that is not a field needs a grid to be sampled on.
    Raises InputError for a file that is none of these, or with NaN or infinite vectors.
    """
    path = Path(path)
    kind = extension(path)
    if kind in TRANSFORMS:
        return read_transform(path, grid)
    if kind not in (*NIFTI, *VECTOR_IMAGES):
        raise InputError(
            f"{path}: unknown format {kind!r}; expected a displacement field, one of "
            f"{', '.join((*NIFTI, *VECTOR_IMAGES, *TRANSFORMS))}"
        )
    _require_file(path)
    raw = nifti.load_vectors(path) if kind in NIFTI else itk.load(path)
    return _on_grid(_from_lps(raw, path), grid)


def write_displacement(displacement: Displacement, path: str | Path) -> None:
    """Write one field so that SimpleITK, ANTs and 3D Slicer apply it unchanged.

    By extension: .nii/.nii.gz (5-D vector, intent 1007), .mha/.nrrd (vector image), .h5/.tfm (ITK
    DisplacementFieldTransform); vectors in LPS mm. NIfTI holds vectors and placement in float32. ITK
    knows no sheared NIfTI grid; use .mha for such a field.
    """
    path = Path(path)
    kind = extension(path)
    if kind not in WRITABLE:
        raise InputError(f"cannot write {path}: unknown extension {kind!r}; expected one of {', '.join(WRITABLE)}")
    if displacement.tensor.shape[0] != 1:
        raise ValueError(f"a file holds one field; got a batch of {displacement.tensor.shape[0]}")
    double = Displacement(displacement.tensor.detach().cpu().double(), displacement.grid)
    vectors = double.to_world()[0].numpy()
    vectors[:2] *= -1
    if kind in NIFTI:
        nifti.save_vectors(vectors, displacement.grid, path)
    elif kind in TRANSFORMS:
        _save_transform(vectors, displacement.grid, path)
    else:
        itk.save(vectors.astype(np.float32), displacement.grid, path)


def read_transform(path: str | Path, grid: Grid | None = None) -> Displacement:
    """An ITK transform file (.txt, .tfm, .mat, .h5, .xfm) as a displacement.

    Linear transforms are exact on ``grid``; a displacement field keeps its own grid unless one is
    given; anything else (B-spline, composite) is sampled on ``grid``.
    Raises InputError for an unreadable file, other dimensions than the grid's, or a missing grid.
    """
    import SimpleITK as sitk  # noqa: N813

    path = Path(path)
    transform = _load(path)
    dims = transform.GetDimension()
    if grid is not None and grid.dims != dims:
        raise InputError(f"{path}: expected a {grid.dims}D transform for the grid {grid.shape}; got a {dims}D one")
    field = transform.Downcast()
    if isinstance(field, sitk.CompositeTransform) and field.GetNumberOfTransforms() == 1:
        field = field.GetNthTransform(0).Downcast()
    if isinstance(field, sitk.DisplacementFieldTransform):
        return _on_grid(_from_lps(itk.from_itk(field.GetDisplacementField(), path), path), grid)
    if grid is None:
        raise InputError(f"{path}: a {transform.GetName()} has no grid of its own; expected a grid to sample it on")
    if transform.IsLinear():
        return Displacement.from_affine(_matrix(transform, dims), grid)
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetOutputPixelType(sitk.sitkVectorFloat64)
    sampler.SetSize(list(grid.shape))
    reference = sitk.Image([1] * dims, sitk.sitkUInt8)
    itk.place(reference, grid)
    sampler.SetOutputOrigin(reference.GetOrigin())
    sampler.SetOutputSpacing(reference.GetSpacing())
    sampler.SetOutputDirection(reference.GetDirection())
    raw = itk.from_itk(sampler.Execute(transform), path)
    return _from_lps(nifti.Raw(raw.array, grid), path)


def read_affine(path: str | Path) -> np.ndarray | None:
    """RAS matrix (D+1, D+1) in mm, output point to source point, of a linear ITK transform file.

    None for a file that holds anything else: a field, a B-spline, a composite with one of them.
    Raises InputError for a transform file that is missing or unreadable.
    """
    path = Path(path)
    if extension(path) not in TRANSFORMS:
        return None
    transform = _load(path)
    return _matrix(transform, transform.GetDimension()) if transform.IsLinear() else None


def write_affine(matrix: np.ndarray, path: str | Path) -> None:
    """Write an affine (D+1, D+1), RAS mm, output point to source point, as an ITK transform (.tfm or .txt).

    SimpleITK, ANTs and 3D Slicer read it as an AffineTransform in LPS.
    Raises InputError for another extension or a place that cannot be written.
    """
    import SimpleITK as sitk  # noqa: N813

    path, matrix = Path(path), np.asarray(matrix, dtype=np.float64)
    if extension(path) not in (".tfm", ".txt"):
        raise InputError(f"cannot write {path}: unknown extension {extension(path)!r}; expected .tfm or .txt")
    dims = len(matrix) - 1
    signs = np.ones(dims)
    signs[:2] = -1
    transform = sitk.AffineTransform(dims)
    transform.SetMatrix((signs[:, None] * matrix[:dims, :dims] * signs).ravel().tolist())
    transform.SetTranslation((signs * matrix[:dims, dims]).tolist())
    with replacing(path) as partial:
        try:
            sitk.WriteTransform(transform, str(partial))
        except RuntimeError as error:
            raise unwritable(path, error) from error
        if not _ends_whole(partial.read_bytes()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _load(path: Path) -> Any:
    import SimpleITK as sitk  # noqa: N813

    _require_file(path)
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable ITK transform ({itk.brief(error)})") from error


def _from_lps(raw: nifti.Raw, path: Path) -> Displacement:
    vectors = np.array(raw.array, dtype=np.float64)
    if vectors.shape[0] != raw.grid.dims:
        raise InputError(
            f"{path}: expected {raw.grid.dims} components for a field on a grid {raw.grid.shape}; "
            f"got {vectors.shape[0]}"
        )
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: the field holds NaN or infinite vectors; expected finite numbers")
    vectors[:2] *= -1
    field = Displacement.from_world(torch.from_numpy(vectors)[None], raw.grid)
    return Displacement(field.tensor.float(), raw.grid)


def _on_grid(field: Displacement, grid: Grid | None) -> Displacement:
    return field if grid is None else field.resampled(grid)


def _matrix(transform: Any, dims: int) -> np.ndarray:
    """RAS matrix (D+1, D+1) of a linear ITK transform, from the images of the origin and the unit points."""
    signs = np.ones(dims)
    signs[:2] = -1
    offset = np.asarray(transform.TransformPoint([0.0] * dims))
    columns = [np.asarray(transform.TransformPoint(unit.tolist())) - offset for unit in np.eye(dims)]
    matrix = np.eye(dims + 1)
    matrix[:dims, :dims] = signs[:, None] * np.stack(columns, axis=1) * signs
    matrix[:dims, dims] = signs * offset
    return matrix


def _save_transform(vectors: np.ndarray, grid: Grid, path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    transform = sitk.DisplacementFieldTransform(itk.to_itk(vectors, grid))
    with replacing(path) as partial:
        try:
            sitk.WriteTransform(transform, str(partial))
        except RuntimeError as error:
            raise unwritable(path, error) from error
        # ITK's text writer does not notice a full disk; the geometry is the last line it writes.
        if extension(path) == ".tfm" and not _ends_whole(partial.read_bytes()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _ends_whole(text: bytes) -> bool:
    last = text.rpartition(b"\nFixedParameters:")
    return bool(last[1]) and last[2].endswith(b"\n")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a transform")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; expected a transform")
