"""whence apply with transforms that have no grid: points move by what ITK says, wherever they lie."""

import numpy as np
import pytest

from whence.errors import InputError
from whence.field import Displacement
from whence.io import Points, read_affine, read_displacement, read_points, write, write_displacement, write_points
from whence.space import Grid, Volume
from whence.train.apply import apply

sitk = pytest.importorskip("SimpleITK")


def affine(dims):
    transform = sitk.AffineTransform(dims)
    rng = np.random.default_rng(0)
    transform.SetMatrix((np.eye(dims) + 0.2 * rng.standard_normal((dims, dims))).ravel().tolist())
    transform.SetTranslation(rng.uniform(-9, 9, dims).tolist())
    transform.SetCenter(rng.uniform(-30, 30, dims).tolist())
    return transform


def by_itk(transform, points):
    signs = np.array([-1, -1, 1])[: points.shape[1]]
    return np.array([transform.TransformPoint((signs * p).tolist()) for p in points]) * signs


@pytest.fixture(params=[2, 3])
def points(request, tmp_path):
    found = np.random.default_rng(1).uniform(-90, 90, (12, request.param))
    write_points(Points(found, tuple("abcdefghijkl")), tmp_path / "points.csv")
    return found


def image(tmp_path, dims, size=8):
    import torch

    path = tmp_path / f"like{size}.nii.gz"
    grid = Grid.regular((size,) * dims, 1.0, centred=True)
    write(Volume(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0)), grid), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".tfm", ".mat", ".h5"])
def test_points_beyond_every_image_move_as_itk_moves_them(points, suffix, tmp_path):
    dims = points.shape[1]
    transform = affine(dims)
    path = tmp_path / f"affine{suffix}"
    sitk.WriteTransform(transform, str(path))
    expected = by_itk(transform, points)
    matrix = read_affine(path)
    np.testing.assert_allclose(points @ matrix[:dims, :dims].T + matrix[:dims, dims], expected, atol=1e-6)
    for like in (None, image(tmp_path, dims)):
        out = apply(path, tmp_path / "points.csv", tmp_path / "moved.csv", like=like, points=True)
        # The file holds six decimals.
        np.testing.assert_allclose(read_points(out).coordinates, expected, atol=1e-5)


def test_a_composite_of_linear_ones_is_linear(tmp_path):
    parts = [affine(3), sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (4.0, 5.0, 6.0))]
    transform = sitk.CompositeTransform(parts)
    sitk.WriteTransform(transform, str(tmp_path / "both.tfm"))
    found = np.random.default_rng(1).uniform(-90, 90, (5, 3))
    matrix = read_affine(tmp_path / "both.tfm")
    np.testing.assert_allclose(found @ matrix[:3, :3].T + matrix[:3, 3], by_itk(transform, found), atol=1e-6)


def test_what_is_no_affine_has_no_matrix(tmp_path):
    grid = Grid.regular((4, 4))
    write_displacement(Displacement.identity(grid), tmp_path / "u.h5")
    write_displacement(Displacement.identity(grid), tmp_path / "u.nii.gz")
    assert read_affine(tmp_path / "u.h5") is None
    assert read_affine(tmp_path / "u.nii.gz") is None
    with pytest.raises(InputError, match=r"none\.mat: no such file"):
        read_affine(tmp_path / "none.mat")


def test_an_affine_of_other_dimensions(tmp_path):
    sitk.WriteTransform(affine(3), str(tmp_path / "affine.txt"))
    write_points(Points(np.zeros((1, 2)), ("a",)), tmp_path / "points.csv")
    with pytest.raises(InputError, match=r"2D points; the field .*affine\.txt is 3D"):
        apply(tmp_path / "affine.txt", tmp_path / "points.csv", tmp_path / "out.csv", points=True)


def test_a_spline_moves_points_within_like_and_refuses_others(tmp_path):
    domain = sitk.Image([40, 40], sitk.sitkUInt8)
    domain.SetOrigin([-20, -20])
    spline = sitk.BSplineTransformInitializer(domain, [4, 4])
    values = np.random.default_rng(0).uniform(-2, 2, len(spline.GetParameters()))
    spline.SetParameters(values.tolist())
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    within = np.random.default_rng(1).uniform(-10, 10, (6, 2))
    write_points(Points(within, tuple("abcdef")), tmp_path / "points.csv")
    with pytest.raises(InputError, match="name one with --like"):
        apply(tmp_path / "spline.tfm", tmp_path / "points.csv", tmp_path / "out.csv", points=True)
    like = image(tmp_path, 2, 32)
    out = apply(tmp_path / "spline.tfm", tmp_path / "points.csv", tmp_path / "out.csv", like=like, points=True)
    # Linear interpolation between samples 1 mm apart of a spline with knots 10 mm apart.
    np.testing.assert_allclose(read_points(out).coordinates, by_itk(spline, within), atol=0.02)
    small = image(tmp_path, 2)
    with pytest.raises(InputError, match=r"\d of 6 points of .* lie outside the grid of --like"):
        apply(tmp_path / "spline.tfm", tmp_path / "points.csv", tmp_path / "no.csv", like=small, points=True)
    assert not (tmp_path / "no.csv").exists()
    assert read_displacement(tmp_path / "spline.tfm", Grid.regular((3, 3))).grid.shape == (3, 3)
