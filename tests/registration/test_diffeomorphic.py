"""Diffeomorphic registration recovers motions that are known, and its inverse is one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import affine, distance, head, motion, points_inside, through

from whence.field import Displacement, folding, resample, warp
from whence.losses import make_similarity
from whence.metrics import displacement_error, inverse_error
from whence.registration import DiffeomorphicSettings, Settings, preset, register, register_diffeomorphic
from whence.registration.convergence import Convergence
from whence.registration.inverse import inverse_on, total, total_inverse
from whence.space import Grid, Volume

SVF = DiffeomorphicSettings(transform="svf")


@pytest.mark.parametrize(("shape", "similarity"), [((64, 56), "ncc"), ((64, 56), "nmi"), ((28, 26, 24), "mse")])
@pytest.mark.parametrize("settings", [DiffeomorphicSettings(), SVF], ids=["greedy", "svf"])
def test_a_known_motion(shape, similarity, settings):
    still = head(shape, 2.0)
    truth, _ = motion(still.grid, 3)
    fixed = warp(still, truth)
    forward, backward = register_diffeomorphic(fixed, still, make_similarity(similarity), settings)
    inside = fixed.tensor > 0.3
    before = truth.magnitude()[inside].mean()
    # Where the image is smooth no similarity sees the motion along its level lines.
    assert float(displacement_error(forward, truth)[inside].mean()) < 0.6 * float(before)
    difference = (warp(still, forward).tensor - fixed.tensor).abs()[inside].mean()
    assert float(difference) < 0.4 * float((still.tensor - fixed.tensor).abs()[inside].mean())
    assert folding(forward) == 0
    assert float(inverse_error(forward, backward)[inside].mean()) < 0.05


@pytest.mark.parametrize("name", ["mi", "mind"])
def test_other_contrast(name):
    still = head((64, 56), 2.0)
    truth, _ = motion(still.grid, 3)
    fixed = warp(still, truth)
    inverted = fixed.with_tensor(torch.where(fixed.tensor > 0.2, 2 - fixed.tensor, fixed.tensor))
    settings = preset("accurate").diffeomorphic
    forward, _ = register_diffeomorphic(inverted, still, make_similarity(name), settings)
    inside = fixed.tensor > 0.3
    before = truth.magnitude()[inside].mean()
    assert float(displacement_error(forward, truth)[inside].mean()) < 0.8 * float(before)
    assert folding(forward) == 0


def test_thick_slices_are_pulled_no_further_than_thin_ones():
    still = head((48, 44, 12), (2.0, 2.0, 8.0))
    fine = head((48, 44, 48), (2.0, 2.0, 2.0))
    truth, _ = motion(fine.grid, 2)
    coarse = truth.resampled(still.grid)
    fixed = warp(still, coarse)
    forward, backward = register_diffeomorphic(fixed, still, make_similarity("mse"))
    inside = fixed.tensor > 0.3
    error = float(displacement_error(forward, coarse)[inside].mean())
    assert error < 0.8 * float(coarse.magnitude()[inside].mean())
    assert folding(forward) == 0
    assert float(inverse_error(forward, backward)[inside].mean()) < 0.05


def test_images_on_two_grids_and_a_mask():
    fixed = head((64, 56), 2.0)
    other = resample(fixed, fixed.grid.resampled(3.0))
    mask = fixed.with_tensor((fixed.tensor > 0.3).float())
    forward, backward = register_diffeomorphic(fixed, other, make_similarity("mse"), fixed_mask=mask)
    assert (forward.grid, backward.grid) == (fixed.grid, other.grid)
    # The same image: what is left to move is less than a voxel.
    assert float(forward.magnitude()[fixed.tensor > 0.3].mean()) < 1.0


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask of ones"])
def test_what_lies_beyond_the_moving_image_is_not_compared(masked):
    """A head against a part of itself: the slab's repeated edge must not draw the rest to it."""
    fixed = head((72, 64), 2.0)
    slab = fixed.grid.cropped((0, 18), (72, 22))
    moving = resample(fixed, slab)
    mask = moving.with_tensor(torch.ones_like(moving.tensor)) if masked else None
    forward, _ = register_diffeomorphic(fixed, moving, make_similarity("mse"), moving_mask=mask)
    # Of voxels of 2 mm; without the weight it was dragged 5 mm where both are known and 40 where one is.
    assert float(forward.magnitude()[:, :, :, 18:40].mean()) < 0.5
    assert float(forward.magnitude().max()) < 5


def test_what_lies_beyond_the_fixed_content_is_still_to_be_had():
    """The moving image shows its object where the fixed one has only background."""
    grid = Grid.regular((96, 96), 1.0)
    here = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"))

    def disc(centre):
        away = np.hypot(here[0] - centre[0], here[1] - centre[1])
        return Volume(torch.from_numpy((1 / (1 + np.exp(away - 14))).astype(np.float32))[None, None], grid)

    fixed, moving = disc((36, 48)), disc((56, 48))
    forward, backward = register_diffeomorphic(fixed, moving, make_similarity("mse"))
    inside = fixed.tensor > 0.5
    assert float((forward.tensor[:, :1][inside] - 20).abs().mean()) < 1.5
    assert float(inverse_error(forward, backward)[inside].mean()) < 0.05


def test_a_similarity_of_one_voxel_size_is_asked_at_that_size_alone():
    class AtFour:
        spacing = 4.0

        def __call__(self, a, b, mask=None):
            sizes.add(tuple(a.shape[2:]))
            return make_similarity("mse")(a, b, mask)

    sizes = set()
    image = head((64, 56), 1.0)
    register_diffeomorphic(image, image, AtFour())
    assert len(sizes) == 1
    assert max(sizes.pop()) <= 16


def test_a_mask_says_where_the_images_are_compared():
    still = head((64, 56), 2.0)
    truth, _ = motion(still.grid, 3)
    fixed = warp(still, truth)
    stain = fixed.tensor.clone()
    stain[..., 28:36, 24:32] = 3.0
    spoilt = fixed.with_tensor(stain)
    mask = fixed.with_tensor((stain < 2.5).float())
    inside = fixed.tensor > 0.3
    settings = DiffeomorphicSettings(levels=(4.0, 2.0, 1.0), iterations=(60, 60, 60))

    def error(**masks):
        forward, _ = register_diffeomorphic(spoilt, still, make_similarity("mse"), settings, **masks)
        return float(displacement_error(forward, truth)[inside].mean())

    assert error(fixed_mask=mask) < 0.8 * error()
    # The same stain in the moving image, shut out by its own mask.
    both = register_diffeomorphic(
        fixed, still.with_tensor(torch.where(mask.tensor > 0, still.tensor, 3.0)), make_similarity("mse"), settings,
        moving_mask=still.with_tensor(mask.tensor),
    )[0]  # fmt: skip
    assert float(displacement_error(both, truth)[inside].mean()) < 0.7 * float(truth.magnitude()[inside].mean())


@pytest.mark.parametrize("transform", ["greedy", "svf"])
def test_register_finds_affine_and_motion_on_oblique_flipped_grids(transform):
    fixed = head((40, 38, 34), 3.0)
    matrix = affine(3, 6.0, 1.05)
    bend, _ = motion(fixed.grid, 3)
    angle = 0.25
    linear = np.array([[-2.5, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 2.5, 0.0]])
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    place = np.eye(4)
    shape = (56, 54, 48)
    place[:3, :3] = turn @ linear
    place[:3, 3] = matrix[:3, 3] - place[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, place)
    # moving = fixed o inverse of (matrix o bend), on a grid of its own.
    moving = warp(fixed, total_inverse(matrix, bend, grid), outside="zeros")
    base = preset("fast")
    settings = replace(base, diffeomorphic=replace(base.diffeomorphic, transform=transform))
    found = register(fixed, moving, make_similarity("mse"), settings)
    points = points_inside(fixed)
    truth = through(matrix, bend(points))
    left = distance(found.displacement(points), truth).mean()
    assert left < 0.6 * distance(through(matrix, points), truth).mean()
    # A fifteenth of a voxel: the inverse is linear between its nodes.
    assert distance(found.inverse(found.displacement(points)), points).mean() < 0.2
    assert (found.displacement.grid, found.inverse.grid) == (fixed.grid, grid)
    assert folding(found.displacement) == 0
    assert float((found.warped().tensor - fixed.tensor).abs().mean()) < 0.02
    assert {stage.split()[0] for stage, *_ in found.energies} >= {"affine", "3"}


def test_totals_and_their_inverses_are_exact():
    grid, other = Grid.regular((40, 36), 2.0, centred=True), Grid.regular((70, 30), (1.3, 3.0), centred=True)
    field, _ = motion(grid, 3)
    matrix = affine(2)
    forward, backward = total(matrix, field), total_inverse(matrix, field, other)
    points = grid.to_world(np.random.default_rng(0).uniform(8, 28, (200, 2)))
    assert np.allclose(forward(points), through(matrix, field(points)), atol=0.02)
    nodes = other.to_world(np.argwhere(np.ones(other.shape))[::7].astype(float))
    inside = nodes[grid.contains(through(np.linalg.inv(matrix), nodes), margin=-4)]
    # Exact at the nodes of the inverse, linear in between.
    assert distance(through(matrix, field(backward(inside))), inside).max() < 0.05
    alone = inverse_on(other, field)
    inside = nodes[grid.contains(nodes, margin=-4)]
    assert distance(field(alone(inside)), inside).max() < 0.05


@pytest.mark.parametrize("shape", [(16, 16, 1), (5, 6), (9, 40)])
@pytest.mark.parametrize("settings", [DiffeomorphicSettings(), SVF], ids=["greedy", "svf"])
def test_small_and_thin_images(shape, settings):
    image = head(shape, 2.0)
    forward, backward = register_diffeomorphic(image, image, make_similarity("mse"), settings)
    assert torch.isfinite(forward.tensor).all()
    assert torch.isfinite(backward.tensor).all()
    if 1 in shape:
        assert float(forward.tensor[:, 2].abs().max()) == 0


def test_constant_images_are_no_crash():
    image = head((20, 20), 2.0)
    flat = image.with_tensor(torch.full_like(image.tensor, 3.0))
    found = register(flat, image)
    assert torch.isfinite(found.displacement.tensor).all()


@pytest.mark.parametrize("shape", [(20, 18, 16), (24, 20, 5)])
def test_the_default_similarity_suits_small_volumes(shape):
    still = head(shape, 2.0)
    fixed = warp(still, Displacement.from_affine(affine(3), still.grid))
    forward, backward = register_diffeomorphic(fixed, still)
    assert torch.isfinite(forward.tensor).all()
    assert folding(forward) == 0
    # Away from the border, beyond which both fields can only go on as they are.
    assert float(inverse_error(forward, backward)[:, :, 5:-5, 5:-5].mean()) < 0.15


def test_a_known_affine_replaces_the_search_and_stages_can_be_left_out():
    fixed = head((40, 38), 2.0)
    found = register(fixed, fixed, start=affine(2), settings=Settings(diffeomorphic=None))
    points = points_inside(fixed)
    assert np.allclose(found.displacement(points), through(affine(2), points), atol=1e-3)
    assert found.energies == ()
    alone = register(fixed, fixed, settings=Settings(affine=None))
    assert np.array_equal(alone.affine, np.eye(3))


def test_what_does_not_fit_is_refused():
    image, volume = head((20, 18), 2.0), head((10, 9, 8), 2.0)
    with pytest.raises(ValueError, match="one dimension"):
        register(image, volume)
    with pytest.raises(ValueError, match="mask"):
        register(image, image, fixed_mask=head((10, 9), 2.0))
    with pytest.raises(ValueError, match="preset"):
        preset("quick")
    for wrong in ({"transform": "bspline"}, {"levels": (1.0, 2.0)}, {"step": -1.0}, {"smooth_total": -1.0}):
        with pytest.raises(ValueError):
            DiffeomorphicSettings(**{"iterations": (5, 5), "levels": (2.0, 1.0), **wrong})


def test_convergence_ends_a_level_that_falls_no_more():
    falling, flat = Convergence(5, 0.01), Convergence(5, 0.01)
    assert not any(falling.done(1.0 - 0.05 * i) for i in range(20))
    stopped = [flat.done(1.0 if i < 3 else 0.5) for i in range(20)]
    assert stopped.index(True) < 15
    rising = Convergence(3, 0.01)
    assert any(rising.done(0.1 * i) for i in range(10))
