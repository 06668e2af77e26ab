"""Affine registration recovers what is known, wherever the images lie."""

import numpy as np
import pytest
import torch
from made import affine, distance, head, points_inside, through

from whence.field import Displacement, warp
from whence.losses import make_similarity
from whence.registration import AffineSettings, register_affine, register_diffeomorphic
from whence.registration.pyramid import region
from whence.registration.start import starts
from whence.space import Grid, Volume


def moved_by(fixed, truth, grid=None):
    """The moving image that an affine brings onto ``fixed``."""
    grid = grid or fixed.grid.cropped((-10,) * fixed.dims, tuple(n + 20 for n in fixed.grid.shape))
    # The grid of the moving image lies where the affine puts the fixed one.
    grid = Grid(grid.shape, grid.affine + np.pad((truth - np.eye(fixed.dims + 1))[:, -1:], ((0, 0), (fixed.dims, 0))))
    return warp(fixed, Displacement.from_affine(np.linalg.inv(truth), grid), outside="zeros")


def errors(fixed, found, truth):
    points = points_inside(fixed)
    return distance(through(found, points), through(truth, points)), distance(points, through(truth, points))


CASES = [((64, 60), (2.0, 2.0)), ((32, 30, 20), (4.0, 4.0, 6.0))]


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_a_known_affine_on_another_grid(shape, spacing, contrast):
    fixed = head(shape, spacing)
    truth = affine(fixed.dims)
    moving = moved_by(fixed, truth)
    if contrast == "inverted":
        moving = moving.with_tensor(torch.where(moving.tensor > 0.2, 2 - moving.tensor, moving.tensor))
    error, before = errors(fixed, register_affine(fixed, moving), truth)
    # A quarter of a voxel, from many voxels away.
    assert error.mean() < 0.25 * max(spacing)
    assert error.mean() < 0.2 * before.mean()


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_worlds_that_do_not_meet(shape, spacing):
    fixed = head(shape, spacing)
    truth = affine(fixed.dims, shift=(400.0, -300.0, 250.0))
    error, _ = errors(fixed, register_affine(fixed, moved_by(fixed, truth)), truth)
    assert error.mean() < 0.25 * max(spacing)


@pytest.mark.parametrize(("degrees", "scale"), [(50.0, 1.0), (-35.0, 1.2), (10.0, 0.75)])
def test_large_turns_and_scales(degrees, scale):
    fixed = head((64, 60), 2.0)
    truth = affine(2, degrees, scale)
    error, _ = errors(fixed, register_affine(fixed, moved_by(fixed, truth)), truth)
    assert error.mean() < 1.0


def test_a_large_turn_of_a_volume():
    fixed = head((36, 34, 30), 3.0)
    truth = affine(3, 40.0, 1.1)
    error, _ = errors(fixed, register_affine(fixed, moved_by(fixed, truth)), truth)
    assert error.mean() < 1.5


def test_flipped_oblique_and_thick_grids():
    fixed = head((40, 38, 34), 3.0)
    truth = affine(3, 5.0, 1.04)
    angle = 0.3
    # Axes permuted and reversed, turned by 17 degrees, slices of 6 mm.
    linear = np.array([[0.0, -2.5, 0.0], [0.0, 0.0, 6.0], [-2.5, 0.0, 0.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ linear
    shape = (56, 60, 26)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    moving = moved_by(fixed, truth, Grid(shape, matrix))
    error, before = errors(fixed, register_affine(fixed, moving), truth)
    assert error.mean() < 1.0
    assert error.mean() < 0.2 * before.mean()


def test_masks_shut_out_what_misleads():
    fixed = head((64, 60), 2.0)
    truth = affine(2)
    moving = moved_by(fixed, truth)
    # A bright bar in both images, which does not move with the rest.
    stain, other = fixed.tensor.clone(), moving.tensor.clone()
    stain[..., :12] = 3.0
    other[..., :16] = 3.0
    masks = {
        "fixed_mask": fixed.with_tensor((torch.arange(60) >= 14).float().expand(1, 1, 64, 60).contiguous()),
        "moving_mask": moving.with_tensor((torch.arange(80) >= 18).float().expand(1, 1, 84, 80).contiguous()),
    }
    error, _ = errors(fixed, register_affine(fixed.with_tensor(stain), moving.with_tensor(other), **masks), truth)
    assert error.mean() < 1.0


@pytest.mark.parametrize("name", ["ncc", "mi", "mind", "mse"])
def test_any_similarity(name):
    fixed = head((64, 60), 2.0)
    truth = affine(2, 4.0, 1.03, (3.0, -2.0))
    error, before = errors(fixed, register_affine(fixed, moved_by(fixed, truth), make_similarity(name)), truth)
    assert error.mean() < 0.3 * before.mean()


@pytest.mark.parametrize("shape", [(16, 16, 1), (5, 6), (9, 40), (1, 30)])
def test_small_and_thin_images(shape):
    image = head(shape, 2.0)
    found = register_affine(image, image, settings=AffineSettings(iterations=(3, 3, 3)))
    assert np.isfinite(found).all()


def test_constant_images_are_no_crash():
    image = head((20, 20), 2.0)
    flat = image.with_tensor(torch.full_like(image.tensor, 3.0))
    assert np.isfinite(register_affine(flat, image)).all()
    assert np.isfinite(register_affine(image, flat)).all()


def test_progress_and_the_order_of_starts():
    image = head((40, 40), 2.0)
    seen = []
    register_affine(image, image, progress=lambda *step: seen.append(step))
    # The field of view is small: its levels are finer than those of a head, but not than its voxels.
    names = list(dict.fromkeys(name for name, *_ in seen))
    assert names == ["affine 4 mm", "affine 2 mm"]
    assert all(0 <= i < n and np.isfinite(e) for _, i, n, e in seen)
    weight = image.tensor[0, 0]
    assert np.allclose(starts(image, image, weight, weight)[0], np.eye(3))


def test_a_mouse_is_registered_as_a_man_is():
    still = head((60, 56, 48), 3.2)
    matrix = affine(3, 8.0, 1.05, (6.0, -5.0, 4.0))
    moved = warp(still, Displacement.from_affine(matrix, still.grid), outside="zeros")
    small = [Volume(v.tensor, Grid(v.grid.shape, np.diag([0.05] * 3 + [1.0]) @ v.grid.affine)) for v in (moved, still)]
    found = [register_affine(*pair) for pair in ((moved, still), small)]
    found[1][:3, 3] /= 0.05
    points = points_inside(moved)
    assert distance(through(found[0], points), through(matrix, points)).mean() < 1.0
    assert distance(through(found[1], points), through(matrix, points)).mean() < 1.0


def test_gradients_that_are_switched_off_are_no_matter():
    image = head((40, 40), 2.0)
    found = []
    for switched in (True, False):
        with torch.set_grad_enabled(switched):
            found.append(register_affine(image, image, settings=AffineSettings(iterations=(3, 3, 3))))
            found.append(register_diffeomorphic(image, image, make_similarity("mse"))[0].tensor.numpy())
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])


def test_images_that_agree_stay_where_they_are():
    image = head((96, 90), 2.0)
    for name in ("mse", "mind", "nmi"):
        forward, _ = register_diffeomorphic(image, image, make_similarity(name))
        # Of intensities in bins a copy that is moved a little can have a shade more in common: a tenth of a voxel.
        assert float(forward.magnitude().max()) <= (0.2 if name == "nmi" else 0)


def test_region_holds_the_image_and_a_margin():
    tensor = torch.zeros(1, 1, 40, 50)
    tensor[..., 5:35, 22:30] = 1
    volume = Volume(tensor, Grid.regular((40, 50), (2.0, 1.0)))
    # A fifteenth of 60 mm.
    assert region(volume, None) == volume.grid.cropped((3, 18), (34, 16))
    large = Volume(tensor, Grid.regular((40, 50), (20.0, 10.0)))
    assert region(large, None) == large.grid.cropped((4, 21), (32, 10))
    assert region(volume.with_tensor(torch.zeros_like(tensor)), None) == volume.grid


@pytest.mark.parametrize("wrong", [{"spacings": (4.0, 8.0)}, {"iterations": (3,)}, {"step": 0.0}, {"search": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError):
        AffineSettings(**wrong)
