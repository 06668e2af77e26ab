"""The trace: points in mm both ways, labels carried, a folder that SimpleITK applies and that appears whole."""

import errno
import os

import numpy as np
import pytest
import torch
from scipy import ndimage

import whence.trace
from whence.errors import InputError
from whence.field import Displacement, exp
from whence.space import Grid, Volume, to_frame
from whence.trace import Trace

sitk = pytest.importorskip("SimpleITK")


def oblique(dims, shape=(30, 26, 22)):
    angle = 0.3
    linear = np.eye(dims)
    linear[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = linear @ np.diag([1.2, -0.9, 2.0][:dims])
    affine[:dims, dims] = [10, -20, 30][:dims]
    return Grid(shape[:dims], affine)


def smooth(shape, seed=0, sigma=2.0):
    array = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return torch.from_numpy((array / np.abs(array).max()).astype(np.float32))[None, None]


def make(dims, **more):
    """A trace of a smooth random motion of some voxels on an oblique grid."""
    grid = oblique(dims)
    velocity = 3 * torch.cat([smooth(grid.shape, seed, 4) for seed in range(dims)], dim=1)
    forward, backward = exp(Displacement(velocity, grid))
    source = Volume(smooth(grid.shape, 7) * 500 + 300, grid)
    image = Volume(smooth(grid.shape, 8) * 400 + 300, grid)
    return Trace.build(source, image, forward, backward, method="made", **more)


def shifted(dims, mm):
    """A trace whose every point came from ``mm`` further."""
    grid = oblique(dims)
    vectors = torch.tensor(mm, dtype=torch.float32).reshape(1, dims, *[1] * dims).expand(1, dims, *grid.shape)
    forward = Displacement.from_world(vectors, grid)
    image = Volume(smooth(grid.shape), grid)
    return Trace.build(image, image, forward, Displacement(-forward.tensor, grid), method="made")


@pytest.mark.parametrize("dims", [2, 3])
def test_whence_and_whither_of_a_translation(dims):
    mm = [4.0, -3.0, 2.0][:dims]
    trace = shifted(dims, mm)
    points = trace.image.grid.to_world(np.random.default_rng(0).uniform(0, 20, (50, dims)))
    assert np.abs(trace.whence(points) - (points + mm)).max() < 1e-3
    assert np.abs(trace.whither(points) - (points - mm)).max() < 1e-3
    assert trace.statistics()["displacement_mean_mm"] == pytest.approx(np.linalg.norm(mm), rel=1e-4)
    assert trace.statistics()["folded_share"] == 0


@pytest.mark.parametrize("dims", [2, 3])
def test_whither_undoes_whence(dims):
    trace = make(dims)
    points = trace.image.grid.to_world(np.random.default_rng(0).uniform(6, 15, (100, dims)))
    moved = np.linalg.norm(trace.whence(points) - points, axis=1)
    left = np.linalg.norm(trace.whither(trace.whence(points)) - points, axis=1)
    assert moved.mean() > 0.5
    # Coordinates in float32 and a search to 1e-4 voxel.
    assert left.max() < 1e-3
    # The stored inverse, two linear interpolations of fields with millimetre curvature.
    stored = np.linalg.norm(trace.inverse(trace.whence(points)) - points, axis=1)
    assert stored.mean() < 0.05
    assert stored.max() < 0.3
    assert len(trace.whither(np.zeros((0, dims)))) == 0


@pytest.mark.parametrize("dims", [2, 3])
def test_carried_labels_are_labels_at_their_source(dims):
    trace = make(dims)
    labels = torch.from_numpy(np.digitize(smooth(trace.source.grid.shape, 3)[0, 0].numpy(), [-0.3, 0, 0.3]))
    labels = Volume(torch.tensor([0, 7, 300, 70_000], dtype=torch.int32)[labels][None, None], trace.source.grid)
    carried = trace.carry(labels)
    assert carried.tensor.dtype == torch.int32
    assert set(carried.tensor.unique().tolist()) <= {0, 7, 300, 70_000}
    voxels = np.random.default_rng(0).integers(6, 15, (200, dims))
    sources = trace.source.grid.to_voxel(trace.whence(trace.image.grid.to_world(voxels)))
    # The label whose mask, linear between its voxels, is the largest.
    names, image = np.array([0, 7, 300, 70_000]), labels.tensor[0, 0].numpy()
    shares = np.array([ndimage.map_coordinates((image == n) * 1.0, sources.T, order=1, mode="nearest") for n in names])
    highest = np.sort(shares, axis=0)
    clear = highest[-1] - highest[-2] > 1e-3
    assert clear.mean() > 0.9
    expected = names[shares.argmax(axis=0)]
    assert (carried.tensor[0, 0].numpy()[tuple(voxels.T)] == expected)[clear].all()


@pytest.mark.parametrize("dims", [2, 3])
def test_save_and_load(dims, tmp_path):
    trace = make(dims, extras={}, id="case 7")
    extras = {"attention": trace.novelty, "cases": [{"id": "a", "distance": 0.5}, {"id": "b", "distance": 1.5}]}
    labels = Volume((trace.source.tensor > 300).int(), trace.source.grid)
    trace = Trace(**{**vars(trace), "extras": extras}).with_truth(trace.image, labels)
    trace.save(tmp_path / "new" / "trace")
    again = Trace.load(tmp_path / "new" / "trace")
    assert again.info["method"] == "made"
    assert again.info["kind"] == "predicted"
    assert again.info["id"] == "case 7"
    assert again.info["statistics"]["displacement_max_mm"] == pytest.approx(
        trace.statistics()["displacement_max_mm"], rel=1e-6
    )
    for name in ("source", "image", "warped_source", "novelty", "target", "labels"):
        before, after = getattr(trace, name), getattr(again, name)
        assert torch.equal(before.tensor, after.tensor), name
        assert after.grid.same_as(before.grid), name
    for name in ("displacement", "inverse"):
        # Millimetres in float32 and back.
        assert torch.allclose(getattr(trace, name).tensor, getattr(again, name).tensor, atol=1e-5), name
    assert torch.equal(again.extras["attention"].tensor, trace.novelty.tensor)
    assert again.extras["cases"] == extras["cases"]


def test_a_second_trace_does_not_inherit_the_first_ones_target(tmp_path):
    trace = make(2)
    trace.with_truth(trace.image, Volume(torch.ones(1, 1, *trace.source.grid.shape).int(), trace.source.grid)).save(
        tmp_path
    )
    trace.save(tmp_path)
    again = Trace.load(tmp_path)
    assert again.target is None
    assert again.labels is None


@pytest.mark.parametrize("dims", [2, 3])
def test_simpleitk_makes_the_warped_source_of_the_files(dims, tmp_path):
    trace = make(dims)
    trace.save(tmp_path)
    field = sitk.ReadImage(str(tmp_path / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    source = sitk.ReadImage(str(tmp_path / "source.nii.gz"), sitk.sitkFloat32)
    prediction = sitk.ReadImage(str(tmp_path / "prediction.nii.gz"))
    theirs = sitk.Resample(source, prediction, transform, sitk.sitkLinear, -1e6)
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "warped_source.nii.gz")))
    theirs = sitk.GetArrayFromImage(theirs)
    inside = theirs > -1e5  # ITK calls the border's outer half voxel outside
    assert inside.mean() > 0.6
    span = float(trace.source.tensor.max() - trace.source.tensor.min())
    assert np.abs(ours - theirs)[inside].max() / span < 1e-3
    point = trace.image.grid.to_world(np.full((1, dims), 12.3))
    moved = transform.TransformPoint(to_frame(point, "RAS", "LPS")[0].tolist())
    assert np.abs(to_frame(np.array([moved]), "LPS", "RAS") - trace.whence(point)).max() < 1e-3


def test_a_failing_save_leaves_the_old_folder(tmp_path, monkeypatch):
    make(2, id="old").save(tmp_path / "trace")
    before = {p: p.read_bytes() for p in (tmp_path / "trace").iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for writer in ("write", "write_displacement", "save_json"):
        with monkeypatch.context() as patch:
            patch.setattr(whence.trace, writer, full)
            with pytest.raises(InputError, match="No space left on device"):
                make(2, id="new").save(tmp_path / "trace")
        assert {p: p.read_bytes() for p in (tmp_path / "trace").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["trace"]


def test_what_makes_no_trace(tmp_path):
    trace = make(2)
    other = Displacement.identity(oblique(2, (9, 9)))
    with pytest.raises(ValueError, match="prediction's grid"):
        Trace.build(trace.source, trace.image, other, trace.inverse, method="made")
    with pytest.raises(ValueError, match="recovered, registered or compared"):
        make(2, kind="guessed")
    for points in (np.zeros(2), np.zeros((3, 3)), [[1.0]]):
        with pytest.raises(InputError, match=r"expected points \(N, 2\)"):
            trace.whence(points)
        with pytest.raises(InputError, match=r"expected points \(N, 2\)"):
            trace.whither(points)
    with pytest.raises(InputError, match=r"expected a trace folder with a trace\.json"):
        Trace.load(tmp_path)


def test_novelty_at_points():
    trace = make(3)
    voxels = np.array([[3, 4, 5], [20, 10, 11]])
    expected = trace.novelty.tensor[0, 0].numpy()[tuple(voxels.T)]
    assert np.allclose(trace.novelty_at(trace.image.grid.to_world(voxels)), expected, atol=1e-4)


def test_channels_may_differ_between_source_and_prediction(tmp_path):
    trace = make(2)
    source = Volume(torch.cat([trace.source.tensor, trace.image.tensor], dim=1), trace.source.grid)
    both = Trace.build(source, trace.image, trace.displacement, trace.inverse, method="made")
    assert both.warped_source.tensor.shape[1] == 2
    assert both.novelty.tensor.shape[1] == 1
    both.save(tmp_path)
    assert Trace.load(tmp_path).source.tensor.shape == source.tensor.shape
