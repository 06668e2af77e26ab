"""Metrics against MONAI, scipy and what can be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.field import Displacement, exp
from whence.metrics import (
    area_under_curve,
    body_mask,
    displacement_error,
    distance_to,
    edge_agreement,
    image_quality,
    inverse_error,
    label_overlap,
    robust_range,
    target_registration_error,
    unexplained,
)
from whence.space import Grid, Volume

ROTATION = np.array([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])


def oblique(dims):
    linear = np.eye(dims)
    linear[:2, :2] = ROTATION
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = linear @ np.diag([1.5, -0.8, 3.0][:dims])
    affine[:dims, dims] = [10, -20, 30][:dims]
    return Grid((24, 20, 12)[:dims], affine)


def smooth(shape, seed=0, sigma=2.0):
    array = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    array = (array - array.min()) / (array.max() - array.min())
    return torch.from_numpy(array.astype(np.float32))[None, None]


@pytest.mark.parametrize("shape", [(60, 50), (30, 26, 24)])
def test_ssim_of_the_whole_image_is_monais(shape):
    from monai.metrics import MultiScaleSSIMMetric, SSIMMetric

    a, b = smooth(shape, 0), smooth(shape, 1)
    b = 0.6 * a + 0.4 * b
    whole = torch.ones_like(a, dtype=torch.bool)
    found = image_quality(a, b, whole)
    theirs = SSIMMetric(len(shape), data_range=1.0)(a, b)
    assert found["ssim"] == pytest.approx(float(theirs), abs=1e-5)
    assert found["mae"] == pytest.approx(float((a - b).abs().mean()), rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * math.log10(float((a - b).square().mean())), rel=1e-5)
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    scales = sum(min(shape) // 2**level > 11 for level in range(5))
    some = [w / sum(weights[:scales]) for w in weights[:scales]]
    theirs = MultiScaleSSIMMetric(len(shape), data_range=1.0, weights=some)(a, b)
    assert found["ms_ssim"] == pytest.approx(float(theirs), abs=1e-5)


def test_quality_of_a_perfect_prediction():
    a = smooth((60, 50))
    found = image_quality(a, a, torch.ones_like(a, dtype=torch.bool))
    assert found["ssim"] == pytest.approx(1, abs=1e-5)
    assert found["ms_ssim"] == pytest.approx(1, abs=1e-5)
    assert found["mae"] == 0
    assert found["psnr"] == pytest.approx(120)


def test_quality_looks_only_inside_the_mask():
    a, b = smooth((60, 50), 0), smooth((60, 50), 1)
    mask = torch.zeros_like(a, dtype=torch.bool)
    mask[..., 20:40, 15:35] = True
    changed = b.clone()
    # Windows reach five voxels beyond the mask.
    changed[..., :14, :], changed[..., 46:, :] = 0, 1
    first, second = image_quality(a, b, mask), image_quality(a, changed, mask)
    for name in ("ssim", "psnr", "mae", "nmi"):
        assert first[name] == pytest.approx(second[name], abs=1e-6)
    inside = image_quality(a, torch.where(mask, a, b), mask)
    assert inside["mae"] == 0
    assert first["ssim"] < inside["ssim"] < 1


def test_quality_without_a_body_is_an_error():
    a = smooth((20, 20))
    with pytest.raises(ValueError, match="mask is empty"):
        image_quality(a, a, torch.zeros_like(a, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(9, 40), (40, 6), (20, 20, 5)])
def test_quality_of_thin_images(shape):
    a, b = smooth(shape, 0, 1), smooth(shape, 1, 1)
    found = image_quality(a, b, torch.ones_like(a, dtype=torch.bool))
    assert all(math.isfinite(value) for value in found.values())


def test_dice_and_hausdorff_of_shifted_cubes():
    """Cubes of side 8 moved by 2 voxels of 1.5 mm: Dice 6/8, most border points 3 mm or nearer."""
    grid = Grid.regular((24, 20, 18), (1.5, 1.0, 2.0))
    a, b = torch.zeros(2, 1, 1, *grid.shape, dtype=torch.int32)
    a[..., 5:13, 5:13, 5:13] = 3
    b[..., 7:15, 5:13, 5:13] = 3
    found = label_overlap(Volume(a, grid), Volume(b, grid), [3, 7])
    assert set(found) == {3}
    dice, distance = found[3]
    assert dice == pytest.approx(0.75)
    assert distance == pytest.approx(3.0)
    assert label_overlap(Volume(a, grid), Volume(a, grid), [3])[3] == (1.0, 0.0)


def test_a_label_that_one_map_lacks():
    grid = Grid.regular((8, 8))
    a, b = torch.zeros(2, 1, 1, 8, 8, dtype=torch.int32)
    a[..., 2:4, 2:4] = 1
    assert label_overlap(Volume(a, grid), Volume(b, grid), [1]) == {1: (0.0, math.inf)}
    with pytest.raises(ValueError, match="one grid"):
        label_overlap(Volume(a, grid), Volume(b, Grid.regular((8, 8), 2.0)), [1])


def test_area_under_curve():
    score = torch.tensor([0.1, 0.4, 0.35, 0.8])
    truth = torch.tensor([False, False, True, True])
    # Of four pairs, three are ranked right.
    assert area_under_curve(score, truth) == pytest.approx(0.75)
    assert area_under_curve(score, ~truth) == pytest.approx(0.25)
    assert area_under_curve(torch.zeros(4), truth) == pytest.approx(0.5)
    assert math.isnan(area_under_curve(score, torch.zeros(4, dtype=torch.bool)))
    rng = np.random.default_rng(0)
    flags = rng.random(20_000) < 0.3
    shifted = rng.standard_normal(20_000) + flags
    # Two normals one standard deviation apart: Phi(1 / sqrt 2).
    expected = 0.5 * (1 + math.erf(0.5))
    assert area_under_curve(torch.from_numpy(shifted), torch.from_numpy(flags)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("shape", [(40, 36), (20, 18, 16)])
def test_edge_agreement(shape):
    a = smooth(shape)
    whole = torch.ones_like(a, dtype=torch.bool)
    assert edge_agreement(a, a, whole) == pytest.approx(1)
    # Edges do not care about contrast, not even about its sign.
    assert edge_agreement(a, 3 - 2 * a, whole) == pytest.approx(1, abs=1e-5)
    assert abs(edge_agreement(a, smooth(shape, 1), whole)) < 0.5
    assert edge_agreement(a, torch.ones_like(a), whole) == 0


def test_edges_are_scipys_sobel():
    from whence.metrics.edges import sobel_magnitude

    a = smooth((20, 18, 16))
    expected = np.sqrt(
        sum((ndimage.sobel(a[0, 0].double().numpy(), axis, mode="nearest") / 32) ** 2 for axis in range(3))
    )
    assert np.allclose(sobel_magnitude(a)[0, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_displacement_error_is_in_mm_on_oblique_grids(dims):
    grid = oblique(dims)
    vector = np.array([3.0, -4.0, 12.0][:dims])
    world = torch.from_numpy(vector).float().reshape(1, dims, *[1] * dims).expand(1, dims, *grid.shape)
    error = displacement_error(Displacement.from_world(world, grid), Displacement.identity(grid))
    assert torch.allclose(error, torch.tensor({2: 5.0, 3: 13.0}[dims]), atol=1e-4)
    with pytest.raises(ValueError, match="one grid"):
        displacement_error(Displacement.identity(grid), Displacement.identity(Grid.regular(grid.shape)))


def test_target_registration_error():
    found = target_registration_error(np.array([[0.0, 0, 0], [1, 1, 1]]), np.array([[3.0, 4, 0], [1, 1, 1]]))
    assert found.tolist() == [5, 0]


def test_distance_in_mm():
    grid = Grid.regular((11, 9, 7), (2.0, 1.0, 3.0))
    mask = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    mask[..., 5, 4, 3] = True
    distance = distance_to(mask, grid)
    there = grid.to_world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
    expected = np.linalg.norm(there - grid.to_world(np.array([5.0, 4, 3])), axis=-1)
    assert np.allclose(distance[0, 0].numpy(), expected, atol=1e-4)
    assert torch.isinf(distance_to(torch.zeros_like(mask), grid)).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_inverse_error(dims):
    grid = oblique(dims)
    still = Displacement.identity(grid)
    shift = Displacement(torch.full((1, dims, *grid.shape), 1.5), grid)
    back = Displacement(-shift.tensor, grid)
    assert float(inverse_error(shift, back).max()) == pytest.approx(0, abs=1e-5)
    # An inverse that is none leaves the whole motion.
    assert torch.allclose(inverse_error(shift, still), torch.tensor(1.5 * math.sqrt(dims)), atol=1e-4)
    velocity = torch.stack([smooth(grid.shape, seed, 3)[0, 0] for seed in range(dims)])[None] * 3 - 1.5
    forward, backward = exp(Displacement(velocity, grid))
    # Linear interpolation of the two fields is all that keeps them from being exact inverses.
    assert float(inverse_error(forward, backward)[..., 4:-4, 4:-4].mean()) < 0.05


def test_robust_range():
    image = torch.arange(1000.0).reshape(1, 1, 25, 40)
    image[0, 0, 0, 0], image[0, 0, -1, -1] = -1e6, 1e6
    low, high = robust_range(image)
    assert float(low) == pytest.approx(5, abs=1)
    assert float(high) == pytest.approx(994, abs=1)
    low, high = robust_range(torch.zeros(2, 1, 4, 4))
    assert (high > low).all()


def test_body_mask_fills_holes_and_drops_crumbs():
    image = torch.zeros(1, 1, 40, 40)
    image[..., 8:30, 8:30] = 1
    image[..., 15:20, 15:20] = 0
    image[..., 35:38, 35:38] = 1
    expected = torch.zeros_like(image, dtype=torch.bool)
    expected[..., 8:30, 8:30] = True
    difference = body_mask(image) ^ expected
    assert int(difference.sum()) <= 4  # corners lost to the opening


def scene():
    """A head-like picture: levels of tissue on dark ground, with noise well below their contrast."""
    levels = (smooth((64, 64), 3, 5) * 4).floor() / 4 + 0.25
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    head = ((rows - 32) ** 2 + (columns - 32) ** 2 < 26**2)[None, None]
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.005
    return torch.where(head, levels + noise, torch.zeros(()))


@pytest.mark.parametrize(
    "contrast", [lambda x: x, lambda x: 3 * x + 100, lambda x: 1 - x, lambda x: x**2, lambda x: torch.sqrt(x.clamp(0))]
)
def test_a_change_of_contrast_is_no_novelty(contrast):
    image = scene()
    found = unexplained(contrast(image), image)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float(found.mean()) < 0.03


def test_what_is_painted_in_is_novel():
    image = scene()
    painted = image.clone()
    hole = torch.zeros_like(image, dtype=torch.bool)
    hole[..., 26:36, 28:40] = True
    # A cavity where there was bright tissue.
    painted[hole] = 0.02
    found = unexplained(painted, image)
    assert float(found[..., 28:34, 30:38].mean()) > 0.5
    far = torch.from_numpy(~ndimage.binary_dilation(hole[0, 0].numpy(), iterations=4))[None, None]
    assert float(found[far].mean()) < 0.1
    assert area_under_curve(found, hole) > 0.95


def test_novelty_with_other_numbers_of_channels():
    image = scene()
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    # Whichever channel of the source explains the prediction, wherever it stands.
    found = unexplained(1 - image, torch.cat([noise, image], dim=1))
    assert torch.allclose(found, unexplained(1 - image, image))
    assert unexplained(torch.cat([image, 1 - image], dim=1), image).shape == image.shape
    with pytest.raises(ValueError, match="differ"):
        unexplained(image, image[..., 1:])
