"""Fields with known answers: translations, linear flows, affine maps, and identities between operations."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter

from whence.field import Displacement, compose, exp, folding, invert, jacobian_determinant, resample, warp
from whence.space import Grid, Volume

SHAPES = [(40, 37), (24, 21, 23)]


def oblique(shape, spacing=(1.0, 1.5, 2.0), flip=False, seed=0):
    dims = len(shape)
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((dims, dims)) + 3 * np.eye(dims))[0]
    axes *= np.sign(np.diag(axes))
    if flip:
        axes[:, 0] *= -1
    linear = axes * np.array(spacing)[:dims]
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = linear
    affine[:dims, dims] = -linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def smooth(shape, channels, sigma, size, seed=0):
    rng = np.random.default_rng(seed)
    array = np.stack([gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(channels)])
    return torch.from_numpy((array * size / np.abs(array).max()).astype(np.float32))[None]


def inner(tensor, margin):
    return tensor[(..., *[slice(margin, -margin)] * (tensor.ndim - 2))]


def voxels(shape):
    return np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).astype(float)


@pytest.mark.parametrize("shape", SHAPES)
def test_world_vectors_and_voxels_are_inverse(shape):
    grid = oblique(shape, flip=True)
    vectors = smooth(shape, len(shape), 2, 4)
    field = Displacement.from_world(vectors, grid)
    torch.testing.assert_close(field.to_world(), vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(field.magnitude()[:, 0], vectors.norm(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_affine_map_moves_points_as_its_matrix(shape):
    grid = oblique(shape)
    dims = grid.dims
    matrix = np.eye(dims + 1)
    matrix[:dims, :dims] += np.random.default_rng(1).normal(0, 0.1, (dims, dims))
    matrix[:dims, dims] = [3.0, -2.0, 1.0][:dims]
    field = Displacement.from_affine(matrix, grid)
    points = grid.to_world(np.random.default_rng(2).uniform(0, np.array(shape) - 1, (50, dims)))
    np.testing.assert_allclose(field(points), points @ matrix[:dims, :dims].T + matrix[:dims, dims], atol=1e-4)
    determinant = jacobian_determinant(field)
    torch.testing.assert_close(
        determinant, torch.full_like(determinant, float(np.linalg.det(matrix[:dims, :dims]))), atol=1e-4, rtol=0
    )
    assert folding(field) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reflection_folds_everywhere(shape):
    grid = oblique(shape)
    matrix = np.diag([-1.0, *[1.0] * grid.dims])
    field = Displacement.from_affine(matrix, grid)
    assert folding(field) == 1
    half = torch.zeros((1, 1, *shape))
    half[:, :, : shape[0] // 2] = 1
    assert folding(field, half) == 1
    assert folding(field, torch.zeros_like(half)) == 0


def test_folding_counts_the_voxels_that_fold():
    grid = Grid.regular((20, 10))
    u = torch.zeros(1, 2, 20, 10)
    u[:, 0, 8:12] = (-2.0 * torch.arange(4) - 1.0).reshape(1, 4, 1)
    determinant = jacobian_determinant(Displacement(u, grid))
    # Central differences along the first axis: 1 + (u[i+1] - u[i-1]) / 2.
    expected = 1 + torch.from_numpy(np.gradient(u[0, 0].numpy(), axis=0))
    torch.testing.assert_close(determinant[0, 0], expected)
    assert folding(Displacement(u, grid)) == pytest.approx(float((expected <= 0).double().mean()))


@pytest.mark.parametrize("shape", SHAPES)
def test_exp_of_a_constant_is_a_translation(shape):
    grid = oblique(shape)
    velocity = torch.tensor([2.3, -1.7, 0.6])[: len(shape)].reshape(1, -1, *[1] * len(shape)).expand(1, -1, *shape)
    forward, backward = exp(Displacement(velocity, grid))
    torch.testing.assert_close(forward.tensor, velocity.contiguous(), atol=1e-5, rtol=0)
    torch.testing.assert_close(backward.tensor, -velocity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_exp_of_a_linear_velocity_is_the_matrix_exponential(shape):
    dims = len(shape)
    generator = np.random.default_rng(4).normal(0, 0.12, (dims, dims))
    centre = (np.array(shape) - 1) / 2
    offsets = voxels(shape) - centre
    velocity = torch.from_numpy(np.moveaxis(offsets @ generator.T, -1, 0))[None]
    forward, backward = exp(Displacement(velocity, Grid.regular(shape)), steps=7)
    for field, sign in ((forward, 1), (backward, -1)):
        expected = offsets @ (expm(sign * generator) - np.eye(dims)).T
        # Where no path leaves the grid; scaling and squaring starts from a step of first order, v / 128.
        error = np.abs(np.moveaxis(field.tensor[0].numpy(), 0, -1) - expected)
        middle = tuple(slice(n // 3, -(n // 3)) for n in shape)
        assert error[middle].max() < 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_exp_converges_with_its_steps(shape):
    grid = Grid.regular(shape)
    velocity = Displacement(smooth(shape, grid.dims, 4, 3), grid)
    reference = exp(velocity, steps=12)[0].tensor
    errors = [float((exp(velocity, steps=s)[0].tensor - reference).abs().mean()) for s in (2, 4, 7)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_the_negated_velocity_inverts(shape):
    grid = oblique(shape)
    # Vanishing at the border, so that nothing enters from where the field is unknown.
    window = np.prod(np.meshgrid(*[np.hanning(n) for n in shape], indexing="ij"), axis=0)
    velocity = smooth(shape, grid.dims, 4, 1) * torch.from_numpy(window).float()
    velocity = Displacement(3 * velocity / velocity.abs().max(), grid)
    forward, backward = exp(velocity)
    assert float(forward.tensor.norm(dim=1).max()) > 1
    for there, back in ((forward, backward), (backward, forward)):
        assert float(compose(there, back).tensor.norm(dim=1).mean()) < 0.05
    assert folding(forward) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_invert_is_a_right_and_left_inverse(shape):
    grid = oblique(shape)
    field = Displacement(smooth(shape, grid.dims, 4, 2.5), grid)
    assert folding(field) == 0
    inverse = invert(field)
    # phi(phi^-1(p)) = p is what the iteration solves, to its tolerance; the other order interpolates.
    assert float(inner(compose(inverse, field).tensor, 4).norm(dim=1).max()) < 2e-3
    assert float(inner(compose(field, inverse).tensor, 4).norm(dim=1).mean()) < 0.05


def test_invert_of_a_strong_field_still_converges():
    # |du/dx| close to 1, where the plain iteration oscillates.
    x = torch.linspace(-1, 1, 81)
    u = torch.zeros(1, 2, 81, 5)
    u[0, 0] = (-9.0 * torch.sin(np.pi * x) * 1.3)[:, None]
    field = Displacement(u, Grid.regular((81, 5)))
    assert folding(field) == 0
    inverse = invert(field, iterations=400)
    assert float(compose(inverse, field).tensor.abs().max()) < 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_whither_undoes_whence_for_points(shape):
    grid = oblique(shape, flip=True)
    field = Displacement(smooth(shape, grid.dims, 4, 2.5), grid)
    points = grid.to_world(np.random.default_rng(5).uniform(6, np.array(shape) - 7, (40, grid.dims)))
    back = invert(field)(field(points))
    assert np.linalg.norm(back - points, axis=1).mean() < 0.05 * grid.spacing.min()


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_moves_a_point_by_the_first_then_by_the_second(shape):
    grid = oblique(shape)
    first = Displacement(smooth(shape, grid.dims, 4, 2), grid)
    second = Displacement(smooth(shape, grid.dims, 4, 2, seed=1), grid)
    points = grid.to_world(voxels(shape).reshape(-1, grid.dims)[::7])
    np.testing.assert_allclose(compose(first, second)(points), second(first(points)), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_warping_with_the_composition_is_warping_twice(shape):
    grid = oblique(shape)
    image = Volume(smooth(shape, 1, 4, 1), grid)
    first = Displacement(smooth(shape, grid.dims, 3, 2.5), grid)
    second = Displacement(smooth(shape, grid.dims, 3, 2.5, seed=1), grid)
    twice = inner(warp(warp(image, second), first).tensor, 4)
    once = float((inner(warp(image, compose(first, second)).tensor, 4) - twice).abs().mean())
    swapped = float((inner(warp(image, compose(second, first)).tensor, 4) - twice).abs().mean())
    # Two interpolations blur twice: they differ by a share of the image's second derivative.
    assert once < 0.005
    assert swapped > 3 * once


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_across_grids(shape):
    here = oblique(shape)
    there = oblique(tuple(n + 9 for n in shape), spacing=(1.2, 1.3, 1.9), flip=True, seed=3)
    first = Displacement(smooth(here.shape, here.dims, 4, 1.5), here)
    second = Displacement(smooth(there.shape, there.dims, 4, 1.5, seed=1), there)
    total = compose(first, second)
    assert total.grid == here
    points = here.to_world(voxels(shape).reshape(-1, here.dims)[::11])
    np.testing.assert_allclose(total(points), second(first(points)), atol=1e-3)
    assert compose(first) is first
    with pytest.raises(ValueError, match="at least one"):
        compose()


@pytest.mark.parametrize("shape", SHAPES)
def test_many_fields_are_associative(shape):
    grid = oblique(shape)
    matrices = [np.eye(grid.dims + 1) for _ in range(3)]
    for seed, matrix in enumerate(matrices):
        matrix[:-1] += np.random.default_rng(seed).normal(0, 0.03, matrix[:-1].shape)
    fields = [Displacement.from_affine(m, grid) for m in matrices]
    expected = Displacement.from_affine(matrices[2] @ matrices[1] @ matrices[0], grid)
    error = inner((compose(*fields).tensor - expected.tensor).abs(), 5)
    assert float(error.max()) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_a_linear_image_is_warped_exactly(shape):
    # A linear image is its own interpolation: moved(p) must be the formula at phi(p), on another grid too.
    output, moving = oblique(shape), oblique(tuple(n + 20 for n in shape), seed=2, flip=True)
    slope = np.array([0.3, -0.2, 0.5])[: output.dims]
    ramp = moving.to_world(voxels(moving.shape)) @ slope
    field = Displacement(smooth(shape, output.dims, 4, 1.5), output)
    moved = warp(Volume(torch.from_numpy(ramp.astype(np.float32))[None, None], moving), field)
    sources = field(output.to_world(voxels(shape).reshape(-1, output.dims)))
    inside = moving.contains(sources, margin=0)
    assert inside.mean() > 0.7
    np.testing.assert_allclose(moved.numpy().ravel()[inside], (sources @ slope)[inside], atol=1e-3)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_labels_keep_their_values_and_type(kind):
    grid = oblique((20, 22))
    values = torch.tensor([0, 3, 17, 251]).to(kind)
    if kind == torch.int64:
        values[3] = 2**40 + 1
    labels = Volume(values[torch.randint(4, (1, 1, 20, 22), generator=torch.Generator().manual_seed(0))], grid)
    field = Displacement(smooth((20, 22), 2, 3, 3), grid)
    for mode in ("nearest", "label"):
        moved = warp(labels, field, mode=mode)
        assert moved.tensor.dtype == kind
        assert set(moved.tensor.unique().tolist()) <= set(values.tolist())
        still = warp(labels, Displacement.identity(grid), mode=mode)
        assert torch.equal(still.tensor, labels.tensor)
    with pytest.raises(ValueError, match="sampled with mode 'label' or 'nearest'"):
        warp(labels, field)


def test_outside_is_what_was_named():
    grid = Grid.regular((8, 8))
    image = Volume(torch.full((1, 1, 8, 8), 2.0), grid)
    far = Displacement(torch.full((1, 2, 8, 8), 30.0), grid)
    assert float(warp(image, far, outside="border").tensor.min()) == 2
    assert float(warp(image, far, outside="zeros").tensor.abs().max()) == 0


def test_a_slice_is_not_seen_from_another_plane():
    one = Grid.regular((8, 8, 1))
    image = Volume(torch.ones(1, 1, 8, 8, 1), one)
    above = one.cropped((0, 0, 2), (8, 8, 1))
    assert float(resample(image, above, outside="zeros").tensor.abs().max()) == 0
    assert float(resample(image, above, outside="border").tensor.min()) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_resampling_a_field_keeps_its_map(shape):
    grid = oblique(shape)
    matrix = np.eye(grid.dims + 1)
    matrix[:-1] += np.random.default_rng(7).normal(0, 0.05, matrix[:-1].shape)
    field = Displacement.from_affine(matrix, grid)
    finer = grid.resampled(0.8).cropped((4,) * grid.dims, tuple(n // 2 for n in shape))
    expected = Displacement.from_affine(matrix, finer)
    torch.testing.assert_close(field.resampled(finer).tensor, expected.tensor, atol=1e-4, rtol=0)


def test_resample_to_the_same_grid_is_the_image_itself():
    volume = Volume(torch.rand(1, 1, 5, 6), Grid.regular((5, 6)))
    assert resample(volume, Grid.regular((5, 6))) is volume


def test_misfits_are_refused():
    grid = Grid.regular((5, 6))
    with pytest.raises(ValueError, match="a displacement on"):
        Displacement(torch.zeros(1, 3, 5, 6), grid)
    with pytest.raises(ValueError, match="expected points"):
        Displacement.identity(grid)(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="a batch of 2"):
        Displacement(torch.zeros(2, 2, 5, 6), grid)(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="cannot meet"):
        warp(Volume(torch.zeros(1, 1, 4, 4, 4), Grid.regular((4, 4, 4))), Displacement.identity(grid))


def test_gradients_reach_the_velocity_through_everything():
    grid = oblique((12, 11))
    velocity = smooth((12, 11), 2, 3, 1.5).requires_grad_()
    forward, _ = exp(Displacement(velocity, grid))
    warp(Volume(smooth((12, 11), 1, 2, 1), grid), forward).tensor.square().sum().backward()
    assert velocity.grad is not None
    assert float(velocity.grad.abs().sum()) > 0
    assert not forward.detach().tensor.requires_grad
