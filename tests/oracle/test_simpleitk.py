"""SimpleITK places, applies and reads our files as we do, and we read what it writes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from whence import io
from whence.field import Displacement, compose, invert, jacobian_determinant, resample, warp
from whence.space import Grid, Volume, to_frame

sitk = pytest.importorskip("SimpleITK")

FIELD_FORMATS = (".nii.gz", ".nii", ".mha", ".nrrd", ".h5", ".tfm")


def rotation(dims, angle):
    c, s = np.cos(angle), np.sin(angle)
    if dims == 2:
        return np.array([[c, -s], [s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return about_z @ about_x


def make_grid(shape, spacing, angle=0.0, flip=(), permute=False, centre=0.0):
    dims = len(shape)
    linear = rotation(dims, angle) * np.asarray(spacing)
    for axis in flip:
        linear[:, axis] *= -1
    if permute:
        linear = linear[:, ::-1]
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = linear
    affine[:dims, dims] = centre - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


# (output grid, moving grid): every pair differs in shape, spacing and placement.
CASES = {
    "2d-plain": (make_grid((48, 48), (1, 1)), make_grid((61, 57), (0.9, 1.1))),
    "2d-oblique": (make_grid((45, 37), (1.1, 1.4), 0.4), make_grid((64, 60), (1, 1), -0.2)),
    "2d-anisotropic": (make_grid((33, 51), (2.5, 0.9)), make_grid((70, 41), (1.3, 1.7), 0.1)),
    "2d-flipped": (make_grid((41, 43), (1, 1.2), 0.3, flip=(1,)), make_grid((60, 60), (1, 1), 0.1, flip=(0,))),
    "2d-permuted": (make_grid((41, 35), (1, 1.2), 0.2, permute=True), make_grid((55, 61), (1, 1))),
    "3d-oblique": (make_grid((21, 26, 19), (1.2, 1, 1.3), 0.35), make_grid((35, 33, 37), (1, 1, 1), -0.15)),
    "3d-anisotropic": (make_grid((23, 25, 11), (1, 1, 3.1), 0.1), make_grid((37, 31, 29), (1, 1.2, 1.5))),
    "3d-flipped": (
        make_grid((21, 19, 23), (1.1, 1.3, 1), 0.2, flip=(0, 2)),
        make_grid((33, 35, 31), (1, 1, 1.2), 0.3, flip=(1,)),
    ),
    "3d-permuted": (
        make_grid((21, 17, 23), (1, 1.4, 1.2), 0.25, permute=True),
        make_grid((35, 33, 31), (1, 1, 1.1), centre=0.6),
    ),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request):
    output, moving = CASES[request.param]
    rng = np.random.default_rng(list(CASES).index(request.param))
    return output, smooth_image(moving, rng), smooth_field(output, rng)


def smooth_image(grid, rng):
    array = gaussian_filter(rng.standard_normal(grid.shape), 2.5)
    array = (array - array.min()) / (array.max() - array.min())
    return Volume(torch.from_numpy(array.astype(np.float32))[None, None], grid)


def smooth_field(grid, rng, millimetres=3.0):
    """Random smooth vectors in mm, at most ``millimetres`` long along an axis."""
    vectors = np.stack([gaussian_filter(rng.standard_normal(grid.shape), 4) for _ in range(grid.dims)])
    vectors *= millimetres / np.abs(vectors).max()
    return Displacement.from_world(torch.from_numpy(vectors.astype(np.float32))[None], grid)


def random_points(grid, rng, count=60, margin=2):
    """World points inside the outer voxels of a grid."""
    voxels = rng.uniform(margin, np.array(grid.shape) - 1 - margin, size=(count, grid.dims))
    return grid.to_world(voxels)


def itk_field(path):
    """The file as SimpleITK's user would load it."""
    if path.suffix in (".h5", ".tfm"):
        return sitk.ReadTransform(str(path))
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def itk_points(transform, points):
    """Points in RAS mm through an ITK transform."""
    there = [transform.TransformPoint(p.tolist()) for p in to_frame(points, "RAS", "LPS")]
    return to_frame(np.array(there), "LPS", "RAS")


def itk_warp(moving, reference, transform, interpolator=None):
    result = sitk.Resample(moving, reference, transform, interpolator or sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(result).T


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_images_lie_where_itk_puts_them(case, suffix, tmp_path):
    _, moving, _ = case
    io.write(moving, tmp_path / f"moving{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"moving{suffix}"))
    assert image.GetSize() == moving.grid.shape
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, moving.numpy())
    for index in ([0] * moving.dims, [n - 1 for n in moving.grid.shape], [3, 7, 5][: moving.dims]):
        there = to_frame(np.array(image.TransformIndexToPhysicalPoint(index)), "LPS", "RAS")
        # A NIfTI header holds float32: a hundred mm to 1e-5.
        np.testing.assert_allclose(moving.grid.to_world(np.array(index)), there, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_images_written_by_itk_are_placed_alike(case, suffix, tmp_path):
    _, moving, _ = case
    io.write(moving, tmp_path / "moving.mha")
    image = sitk.ReadImage(str(tmp_path / "moving.mha"))
    sitk.WriteImage(image, str(tmp_path / f"again{suffix}"))
    volume = io.read(tmp_path / f"again{suffix}")
    assert volume.grid.same_as(moving.grid, tolerance=1e-4)
    assert torch.equal(volume.tensor, moving.tensor)


@pytest.mark.parametrize("suffix", FIELD_FORMATS)
def test_itk_applies_our_field_as_we_do(case, suffix, tmp_path):
    output, moving, field = case
    io.write(moving, tmp_path / "moving.nii.gz")
    io.write(Volume(torch.zeros((1, 1, *output.shape)), output), tmp_path / "reference.nii.gz")
    path = tmp_path / f"field{suffix}"
    io.write_displacement(field, path)
    theirs = itk_warp(
        sitk.ReadImage(str(tmp_path / "moving.nii.gz")),
        sitk.ReadImage(str(tmp_path / "reference.nii.gz")),
        itk_field(path),
    )
    ours = warp(moving, field).numpy()
    inside = sources_inside(output, moving.grid, field)
    # A 2D oblique pair may overlap little; most of it must still be compared.
    assert inside.mean() > 0.5
    assert np.abs(ours - theirs)[inside].max() < 1e-3


@pytest.mark.parametrize(("mode", "theirs"), [("nearest", sitk.sitkNearestNeighbor), ("label", sitk.sitkLabelLinear)])
def test_itk_carries_labels_as_we_do(case, mode, theirs, tmp_path):
    output, moving, field = case
    labels = moving.with_tensor((moving.tensor * 4).round().int())
    io.write_labels(labels, tmp_path / "labels.nii.gz")
    io.write_displacement(field, tmp_path / "field.nii.gz")
    reference = sitk.ReadImage(str(tmp_path / "field.nii.gz"))
    image = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    theirs = itk_warp(image, reference, itk_field(tmp_path / "field.nii.gz"), theirs)
    ours = warp(labels, field, mode).numpy()
    inside = sources_inside(output, moving.grid, field)
    # Only samples within rounding of half a voxel, or of equal shares, may get the other label.
    assert (ours == theirs)[inside].mean() > 0.999


def sources_inside(output, moving, field):
    """Voxels of the output whose source lies inside the moving image's outer voxel centres."""
    here = np.stack(np.meshgrid(*[np.arange(n) for n in output.shape], indexing="ij"), axis=-1)
    moved = output.to_world(here) + np.moveaxis(field.to_world()[0].numpy(), 0, -1)
    return moving.contains(moved, margin=-1e-3)


@pytest.mark.parametrize("suffix", FIELD_FORMATS)
def test_points_travel_alike_in_both_directions(case, suffix, tmp_path):
    output, _, field = case
    inverse = invert(field)
    points = random_points(output, np.random.default_rng(3))
    for name, ours in (("whence", field), ("whither", inverse)):
        path = tmp_path / f"{name}{suffix}"
        io.write_displacement(ours, path)
        theirs = itk_points(itk_field(path), points)
        assert np.abs(ours(points) - theirs).max() < 1e-3


def test_our_inverse_inverts_in_itk(case, tmp_path):
    output, _, field = case
    io.write_displacement(field, tmp_path / "field.nii.gz")
    io.write_displacement(invert(field), tmp_path / "inverse.nii.gz")
    points = random_points(output, np.random.default_rng(4), margin=5)
    there = itk_points(itk_field(tmp_path / "field.nii.gz"), points)
    back = itk_points(itk_field(tmp_path / "inverse.nii.gz"), there)
    # The inverse is exact at voxels and linear between them.
    assert np.linalg.norm(back - points, axis=1).mean() < 0.05 * output.spacing.min()


@pytest.mark.parametrize("suffix", FIELD_FORMATS)
@pytest.mark.parametrize("dims", [2, 3])
def test_fields_written_by_itk_are_read_to_the_same_values(dims, suffix, tmp_path):
    rng = np.random.default_rng(5)
    size = (9, 7, 5)[:dims]
    image = sitk.GetImageFromArray(rng.standard_normal((*reversed(size), dims)), isVector=True)
    image.SetOrigin([12.5, -40.25, 7.0][:dims])
    image.SetSpacing([0.7, 1.9, 3.0][:dims])
    direction = rotation(dims, 0.6)
    direction[:, 0] *= -1
    image.SetDirection(direction.ravel().tolist())
    path = tmp_path / f"field{suffix}"
    if suffix in (".h5", ".tfm"):
        sitk.WriteTransform(sitk.DisplacementFieldTransform(sitk.Image(image)), str(path))
    else:
        sitk.WriteImage(image, str(path))
    field = io.read_displacement(path)
    assert field.grid.shape == size
    vectors = np.moveaxis(field.to_world()[0].numpy(), 0, -1)
    for index in np.ndindex(*size):
        where = to_frame(np.array(image.TransformIndexToPhysicalPoint(index)), "LPS", "RAS")
        np.testing.assert_allclose(field.grid.to_world(np.array(index)), where, atol=1e-4)
        np.testing.assert_allclose(to_frame(vectors[index], "RAS", "LPS"), image.GetPixel(index), atol=1e-5)


def linear_transforms(dims):
    affine = sitk.AffineTransform(dims)
    affine.SetMatrix((rotation(dims, 0.2) @ np.diag([1.1, 0.9, 1.05][:dims]) + 0.03).ravel().tolist())
    affine.SetTranslation([3.0, -2.0, 1.5][:dims])
    affine.SetCenter([10.0, 5.0, -4.0][:dims])
    euler = sitk.Euler2DTransform() if dims == 2 else sitk.Euler3DTransform()
    euler.SetCenter([4.0, -6.0, 2.0][:dims])
    euler.SetTranslation([1.0, 2.0, -3.0][:dims])
    euler.SetParameters([0.3, 1.0, 2.0] if dims == 2 else [0.1, -0.2, 0.3, 1.0, 2.0, -3.0])
    both = sitk.CompositeTransform([affine, euler])
    return [affine, euler, sitk.TranslationTransform(dims, [4.0, -1.0, 2.0][:dims]), both]


@pytest.mark.parametrize("suffix", [".txt", ".tfm", ".mat", ".h5"])
@pytest.mark.parametrize("dims", [2, 3])
def test_linear_transforms_agree_with_itk_on_points(dims, suffix, tmp_path):
    grid = make_grid((21, 18, 15)[:dims], (2.0, 2.5, 3.0)[:dims], 0.3, flip=(0,), centre=5.0)
    points = random_points(grid, np.random.default_rng(6), margin=0)
    for transform in linear_transforms(dims):
        if suffix == ".mat" and isinstance(transform, sitk.CompositeTransform):
            continue
        path = tmp_path / f"linear{suffix}"
        sitk.WriteTransform(transform, str(path))
        field = io.read_transform(path, grid)
        assert np.abs(field(points) - itk_points(transform, points)).max() < 1e-3


def test_the_header_ants_gives_its_affines_is_read(tmp_path):
    grid = make_grid((12, 14, 10), (2, 2, 2), 0.1)
    affine = linear_transforms(3)[0]
    sitk.WriteTransform(affine, str(tmp_path / "affine.txt"))
    text = (tmp_path / "affine.txt").read_text().replace("AffineTransform_double", "MatrixOffsetTransformBase_double")
    (tmp_path / "ants.txt").write_text(text)
    points = random_points(grid, np.random.default_rng(7), margin=0)
    assert np.abs(io.read_transform(tmp_path / "ants.txt", grid)(points) - itk_points(affine, points)).max() < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_transforms_of_several_parts_are_sampled_on_the_grid(dims, tmp_path):
    grid = make_grid((15, 13, 11)[:dims], (1.5, 1.0, 2.0)[:dims], 0.2, flip=(1,))
    field = smooth_field(grid, np.random.default_rng(8), millimetres=1.0)
    io.write_displacement(field, tmp_path / "field.h5")
    # ITK applies the last one first: the field, then the affine.
    both = sitk.CompositeTransform([linear_transforms(dims)[0], sitk.ReadTransform(str(tmp_path / "field.h5"))])
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    ours = io.read_transform(tmp_path / "both.h5", grid)
    voxels = np.stack([np.random.default_rng(9).integers(0, n, 30) for n in grid.shape], axis=1)
    points = grid.to_world(voxels)
    assert np.abs(ours(points) - itk_points(both, points)).max() < 1e-3


def test_compose_is_itks_composite(case, tmp_path):
    output, moving, field = case
    second = smooth_field(moving.grid, np.random.default_rng(10))
    io.write_displacement(field, tmp_path / "first.h5")
    io.write_displacement(second, tmp_path / "second.h5")
    both = sitk.CompositeTransform([sitk.ReadTransform(str(tmp_path / f"{name}.h5")) for name in ("second", "first")])
    voxels = np.stack([np.random.default_rng(11).integers(0, n, 40) for n in output.shape], axis=1)
    points = output.to_world(voxels)
    # ITK's fields vanish beyond their grid, ours continue: compare where both are defined.
    points = points[moving.grid.contains(field(points), margin=-0.01)]
    assert len(points) > 10
    assert np.abs(compose(field, second)(points) - itk_points(both, points)).max() < 1e-3


def test_resample_is_itks_resample(case, tmp_path):
    output, moving, _ = case
    io.write(moving, tmp_path / "moving.nii.gz")
    io.write(Volume(torch.zeros((1, 1, *output.shape)), output), tmp_path / "reference.nii.gz")
    theirs = itk_warp(
        sitk.ReadImage(str(tmp_path / "moving.nii.gz")),
        sitk.ReadImage(str(tmp_path / "reference.nii.gz")),
        sitk.Transform(output.dims, sitk.sitkIdentity),
    )
    inside = sources_inside(output, moving.grid, Displacement.identity(output))
    assert np.abs(resample(moving, output).numpy() - theirs)[inside].max() < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_jacobian_is_itks(dims, tmp_path):
    # ITK's filter differentiates along the array's axes whatever their direction: axes along L, P, S make it right.
    grid = make_grid((21, 17, 15)[:dims], (1.2, 0.9, 2.0)[:dims], flip=(0, 1))
    field = smooth_field(grid, np.random.default_rng(12))
    io.write_displacement(field, tmp_path / "field.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T
    inner = (slice(1, -1),) * dims
    ours = jacobian_determinant(field)[0, 0].numpy()
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-4)
