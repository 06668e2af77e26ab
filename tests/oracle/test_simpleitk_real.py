"""SimpleITK and this package on a real scan."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from whence import io
from whence.field import Displacement, invert, warp
from whence.space import to_frame

sitk = pytest.importorskip("SimpleITK")

DATA = Path(os.environ.get("WHENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SCAN = DATA / "oasis_malf" / "1000_SS.nii.gz"
LABELS = DATA / "oasis_malf" / "1000_glm.nii.gz"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SCAN.exists(), reason=f"no {SCAN}; set WHENCE_DATA to the folder of real images"),
]


@pytest.fixture(scope="module")
def field():
    """A smooth random field of up to 8 mm on a part of the scan's grid, at 2 mm and off its lattice."""
    grid = io.read(SCAN).grid.resampled(2.1)
    grid = grid.cropped(tuple(n // 4 for n in grid.shape), tuple(n // 2 for n in grid.shape))
    rng = np.random.default_rng(0)
    vectors = np.stack([gaussian_filter(rng.standard_normal(grid.shape), 6) for _ in range(3)])
    vectors *= 8 / np.abs(vectors).max()
    return Displacement.from_world(torch.from_numpy(vectors.astype(np.float32))[None], grid)


def test_a_scan_and_its_labels_are_warped_alike(field, tmp_path):
    io.write_displacement(field, tmp_path / "field.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    reference = sitk.VectorIndexSelectionCast(image, 0)
    transform = sitk.DisplacementFieldTransform(image)
    scan = io.read(SCAN)
    theirs = sitk.Resample(sitk.ReadImage(str(SCAN), sitk.sitkFloat32), reference, transform, sitk.sitkLinear, 0.0)
    span = float(scan.tensor.max() - scan.tensor.min())
    difference = np.abs(warp(scan, field).numpy() - sitk.GetArrayFromImage(theirs).T) / span
    assert difference.max() < 1e-3
    labels = io.read_labels(LABELS)
    for mode, method in (("nearest", sitk.sitkNearestNeighbor), ("label", sitk.sitkLabelLinear)):
        theirs = sitk.Resample(sitk.ReadImage(str(LABELS)), reference, transform, method, 0)
        agree = warp(labels, field, mode).numpy() == sitk.GetArrayFromImage(theirs).T
        # Samples that fall between two voxels, or have two labels of one share, to within float32 may go either way.
        assert agree.mean() > 0.9999


def test_points_travel_alike(field, tmp_path):
    points = field.grid.to_world(np.random.default_rng(1).uniform(5, np.array(field.grid.shape) - 6, (100, 3)))
    for name, ours in (("whence", field), ("whither", invert(field))):
        io.write_displacement(ours, tmp_path / f"{name}.nii.gz")
        image = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(image)
        theirs = [transform.TransformPoint(p.tolist()) for p in to_frame(points, "RAS", "LPS")]
        assert np.abs(ours(points) - to_frame(np.array(theirs), "LPS", "RAS")).max() < 1e-3
