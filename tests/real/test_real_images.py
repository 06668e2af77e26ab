"""The commands on real scans, where they are at hand."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from whence import io
from whence.cli import main
from whence.data import PairDataset, read_pairs, survey
from whence.data.readers import brain_tumor_progression
from whence.field import Displacement

sitk = pytest.importorskip("SimpleITK")

DATA = Path(os.environ.get("WHENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SCAN = DATA / "oasis_malf" / "1000_SS.nii.gz"
LABELS = DATA / "oasis_malf" / "1000_glm.nii.gz"
PATIENT = DATA / "brain_tumor_progression" / "01"


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"no {path}; set WHENCE_DATA to the folder of real images")


pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def saved_field(tmp_path_factory):
    """A smooth random field of up to 6 mm on a coarse, shifted part of the scan's grid."""
    grid = io.read(SCAN).grid.resampled(2.3)
    grid = grid.cropped(tuple(n // 4 for n in grid.shape), tuple(n // 2 for n in grid.shape))
    rng = np.random.default_rng(0)
    vectors = np.stack([gaussian_filter(rng.standard_normal(grid.shape), 6) for _ in range(3)])
    field = Displacement.from_world(
        torch.from_numpy((vectors * 6 / np.abs(vectors).max()).astype(np.float32))[None], grid
    )
    path = tmp_path_factory.mktemp("field") / "field.nii.gz"
    io.write_displacement(field, path)
    return path


@needs(SCAN)
def test_apply_agrees_with_simpleitk(saved_field, tmp_path):
    out = tmp_path / "moved.nii.gz"
    assert main(["apply", str(saved_field), str(SCAN), "--out", str(out)]) == 0
    field = sitk.ReadImage(str(saved_field), sitk.sitkVectorFloat64)
    reference = sitk.VectorIndexSelectionCast(field, 0)
    transform = sitk.DisplacementFieldTransform(field)
    scan = sitk.ReadImage(str(SCAN), sitk.sitkFloat32)
    theirs = sitk.GetArrayFromImage(sitk.Resample(scan, reference, transform, sitk.sitkLinear, 0.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    span = np.ptp(sitk.GetArrayViewFromImage(scan))
    assert np.abs(ours - theirs).max() / span < 1e-3

    labels, moved = sitk.ReadImage(str(LABELS)), tmp_path / "labels.nii.gz"
    assert main(["apply", str(saved_field), str(LABELS), "--labels", "--out", str(moved)]) == 0
    field = sitk.ReadImage(str(saved_field), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(sitk.Resample(labels, reference, transform, sitk.sitkLabelLinear, 0))
    # Samples with two labels of one share, to within float32, may go either way.
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(moved))) == theirs).mean() > 0.9999


@needs(SCAN)
def test_apply_onto_the_scans_own_grid(saved_field, tmp_path):
    out = tmp_path / "moved.nii.gz"
    assert main(["apply", str(saved_field), str(SCAN), "--like", str(SCAN), "--out", str(out)]) == 0
    scan, moved = io.read(SCAN), io.read(out)
    assert moved.grid == scan.grid
    points = np.random.default_rng(0).uniform(-20, 20, (40, 3)) + io.read_displacement(saved_field).grid.centre
    voxels = np.rint(scan.grid.to_voxel(points)).astype(int)
    sources = scan.grid.to_voxel(io.read_displacement(saved_field)(scan.grid.to_world(voxels)))
    from whence import kernels

    expected = kernels.sample(scan.tensor, torch.from_numpy(sources.T[None]).float())[0, 0]
    found = moved.numpy()[tuple(voxels.T)]
    assert np.abs(found - expected.numpy()).max() < 1e-3 * float(scan.tensor.max() - scan.tensor.min())


@needs(PATIENT)
def test_the_reader_makes_a_table_that_can_be_trained_on(tmp_path, monkeypatch):
    # The registration has tests of its own and takes most of a minute here.
    monkeypatch.setattr(brain_tumor_progression, "register_affine", lambda fixed, moving: np.eye(4))
    folder = tmp_path / "two"
    for patient in ("01", "02"):
        shutil.copytree(PATIENT.parent / patient, folder / patient)
    # Half of the slices suffice.
    out = tmp_path / "pairs"
    assert main(["pairs", "brain-tumor-progression", str(folder), "--out", str(out), "--test", "02"]) == 0
    table = read_pairs(out / "pairs.csv")
    assert {row.split for row in table} == {"train", "test"}
    assert all(row.conditions["patient"] in ("01", "02") for row in table)
    one = table.split("train")
    assert len(one) >= 10
    assert one.has("source_mask")
    assert one.has("target_mask")
    for row in one.rows[::6]:
        source = io.read(row.path("source"))
        for column in ("target", "source_mask", "target_mask"):
            assert io.read(row.path(column)).grid == source.grid
        assert source.grid.shape[2] == 1
        assert set(io.read_labels(row.path("target_mask")).tensor.unique().tolist()) <= {0, 1}
    assert any(int(io.read_labels(row.path("source_mask")).tensor.sum()) > 0 for row in one)
    frame = survey(one, size=(64, 64), spacing=(4, 4))
    assert (frame.dims, frame.plane) == (2, "axial")
    samples = PairDataset(one, frame)
    assert len(samples) == len(one)
    assert float(samples[len(samples) // 2]["target"].std()) > 0.1
