import numpy as np
import pytest
import torch

from whence.space import Grid, Volume, to_frame


def oblique(shape=(5, 7, 4)):
    dims = len(shape)
    axes = np.linalg.qr(np.random.default_rng(dims).standard_normal((dims, dims)))[0]
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = axes * np.array([1.0, 2.0, 3.5])[:dims]
    affine[:dims, dims] = [10.0, -20.0, 30.0][:dims]
    return Grid(shape, affine)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 4)])
def test_world_and_voxel_are_inverse(shape):
    grid = oblique(shape)
    voxels = np.random.default_rng(0).uniform(-3, 9, (2, 6, grid.dims))
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(voxels)), voxels, atol=1e-10)
    np.testing.assert_allclose(grid.to_world(np.zeros(grid.dims)), grid.affine[:-1, -1])


def test_world_of_a_known_affine():
    grid = Grid((4, 4), np.array([[0.0, -2.0, 5.0], [3.0, 0.0, -1.0], [0, 0, 1]]))
    np.testing.assert_allclose(grid.to_world([[1, 2]]), [[5 - 4, -1 + 3]])
    np.testing.assert_allclose(grid.spacing, [3, 2])


def test_centre_and_regular():
    grid = Grid.regular((5, 8), (2.0, 0.5), centred=True)
    np.testing.assert_allclose(grid.centre, [0, 0], atol=1e-12)
    np.testing.assert_allclose(Grid.regular((5, 8), 2.0).centre, [4, 7])


def test_contains_reaches_half_a_voxel_beyond_the_outer_centres():
    grid = Grid.regular((4, 4), 2.0)
    inside = grid.contains(np.array([[-0.99, 0], [-1.01, 0], [6.99, 6.99], [7.01, 0]]))
    assert inside.tolist() == [True, False, True, False]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 4)])
def test_voxel_map_goes_through_the_world(shape):
    one, other = oblique(shape), Grid.regular(shape, 1.5)
    voxels = np.random.default_rng(1).uniform(0, 4, (10, one.dims))
    homogeneous = np.c_[voxels, np.ones(10)] @ one.voxel_map(other).T
    np.testing.assert_allclose(homogeneous[:, :-1], other.to_voxel(one.to_world(voxels)), atol=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (0, 2), (1,), (0, 1, 2)])
def test_canonical_finds_the_axes_of_any_orientation(order, flips):
    # Built from a canonical grid by permuting and flipping its axes: canonical() must give it back.
    target = Grid((3, 4, 5), np.array([[1, 0.1, 0, 5], [-0.1, 2, 0.2, 6], [0, -0.2, 3, 7], [0, 0, 0, 1.0]]))
    shuffled = target._reordered(order, tuple(a in flips for a in range(3)))
    back = shuffled.canonical()
    assert back.shape == target.shape
    np.testing.assert_allclose(back.affine, target.affine, atol=1e-12)
    # and a tensor that holds the first world coordinate of its voxels goes along with them
    here = np.stack(np.meshgrid(*map(np.arange, shuffled.shape), indexing="ij"), axis=-1).astype(float)
    turned = shuffled.to_canonical(torch.from_numpy(shuffled.to_world(here)[..., 0])[None, None])
    there = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1).astype(float)
    np.testing.assert_allclose(turned[0, 0].numpy(), target.to_world(there)[..., 0], atol=1e-9)


def test_resampled_keeps_the_field_of_view():
    grid = oblique((10, 12, 9))
    fine = grid.resampled(0.5)
    np.testing.assert_allclose(fine.spacing, [0.5] * 3)
    np.testing.assert_allclose(fine.centre, grid.centre, atol=1e-9)
    assert fine.shape == (20, 48, 63)
    assert grid.resampled(tuple(grid.spacing)).same_as(grid)


def test_cropped_leaves_voxels_where_they_are():
    grid = oblique((10, 12, 9))
    part = grid.cropped((2, -3, 1), (5, 20, 4))
    np.testing.assert_allclose(part.to_world([1.0, 4.0, 0.0]), grid.to_world([3.0, 1.0, 1.0]))
    assert part.shape == (5, 20, 4)


def test_same_as_forgives_rounding_only():
    grid = oblique()
    rounded = Grid(grid.shape, grid.affine.astype(np.float32))
    shifted = grid.affine.copy()
    shifted[0, 3] += 0.1
    assert grid.same_as(rounded)
    assert grid != rounded
    assert not grid.same_as(Grid(grid.shape, shifted))
    assert not grid.same_as(Grid((5, 7, 5), grid.affine))


def test_a_grid_cannot_be_changed_behind_its_back():
    affine = np.eye(3)
    grid = Grid((2, 2), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9
    assert hash(grid) == hash(Grid((2, 2), np.eye(3)))


@pytest.mark.parametrize(
    ("shape", "affine", "sentence"),
    [
        ((4,), np.eye(2), "2 or 3 axes"),
        ((4, 0), np.eye(3), "at least one voxel"),
        ((4, 4), np.eye(4), "affine of 3x3"),
        ((4, 4), np.diag([1.0, 0, 1]), "singular"),
        ((4, 4), np.diag([1.0, np.nan, 1]), "singular or not finite"),
        ((4, 4), np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), "singular"),
    ],
)
def test_impossible_grids_are_refused(shape, affine, sentence):
    with pytest.raises(ValueError, match=sentence):
        Grid(shape, affine)


def test_small_voxels_are_not_singular():
    assert Grid.regular((4, 4, 4), 1e-4).spacing[0] == pytest.approx(1e-4)


def test_points_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="have 2 coordinates"):
        Grid.regular((4, 4)).to_world([[1, 2, 3]])
    with pytest.raises(ValueError, match="cannot meet"):
        Grid.regular((4, 4)).voxel_map(Grid.regular((4, 4, 4)))


def test_frames_differ_by_two_signs():
    np.testing.assert_array_equal(to_frame([[1, 2, 3]], "RAS", "LPS"), [[-1, -2, 3]])
    np.testing.assert_array_equal(to_frame([1, 2], "LPS", "RAS"), [-1, -2])
    np.testing.assert_array_equal(to_frame([1, 2], "LPS", "LPS"), [1, 2])
    with pytest.raises(ValueError, match="unknown frame 'IJK'"):
        to_frame([1, 2, 3], "IJK", "RAS")


def test_a_volume_fits_its_grid():
    grid = Grid.regular((4, 5))
    assert Volume(torch.zeros(2, 3, 4, 5), grid).numpy().shape == (4, 5)
    with pytest.raises(ValueError, match="needs a tensor"):
        Volume(torch.zeros(1, 1, 5, 4), grid)
