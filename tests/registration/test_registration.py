"""Registration recovers motions that are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.field import Displacement, exp, folding, resample, warp
from whence.losses import make_similarity
from whence.metrics import displacement_error, inverse_error
from whence.registration import register_affine, register_diffeomorphic
from whence.space import Grid, Volume


def head(shape, spacing, seed=0):
    """An off-centre blob with structure inside, dark ground around it."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in shape), indexing="ij")
    radius = sum((a / r) ** 2 for a, r in zip(axes, (0.8, 1.0, 0.9), strict=False))
    inside = ndimage.gaussian_filter((radius < 1).astype(float), 1)
    structure = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    array = inside * (1 + 0.5 * structure / np.abs(structure).max())
    return Volume(torch.from_numpy(array.astype(np.float32))[None, None], Grid.regular(shape, spacing, centred=True))


def known_affine(dims):
    matrix = np.eye(dims + 1)
    angle = 0.12
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:dims, :dims] *= 1.06
    matrix[:dims, dims] = [7.0, -5.0, 4.0][:dims]
    return matrix


@pytest.mark.parametrize(("shape", "spacing"), [((64, 60), (2.0, 2.0)), ((32, 30, 20), (4.0, 4.0, 6.0))])
@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_affine(shape, spacing, contrast):
    fixed = head(shape, spacing)
    dims = fixed.dims
    # A moving image on a larger, shifted grid, made from the fixed one by the inverse of what is sought.
    truth = known_affine(dims)
    grid = fixed.grid.cropped((-6,) * dims, tuple(n + 12 for n in shape))
    moving = warp(fixed, Displacement.from_affine(np.linalg.inv(truth), grid), outside="zeros")
    if contrast == "inverted":
        moving = moving.with_tensor(torch.where(moving.tensor > 0.2, 2 - moving.tensor, moving.tensor))
    found = register_affine(fixed, moving)
    points = fixed.grid.to_world(np.random.default_rng(0).uniform(0.25, 0.75, (100, dims)) * (np.array(shape) - 1))

    def moved(matrix):
        return points @ matrix[:dims, :dims].T + matrix[:dims, dims]

    error = np.linalg.norm(moved(found) - moved(truth), axis=1)
    before = np.linalg.norm(points - moved(truth), axis=1)
    # Half a voxel, from many voxels away.
    assert error.mean() < 0.5 * max(spacing)
    assert error.mean() < 0.25 * before.mean()


@pytest.mark.parametrize(("shape", "similarity"), [((64, 56), "ncc"), ((28, 26, 24), "mse")])
def test_diffeomorphic(shape, similarity):
    still = head(shape, 2.0)
    dims = still.dims
    rng = np.random.default_rng(3)
    velocity = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 6) for _ in range(dims)])
    velocity = torch.from_numpy((velocity * 3 / np.abs(velocity).max()).astype(np.float32))[None]
    truth, _ = exp(Displacement(velocity, still.grid))
    fixed = warp(still, truth)
    forward, backward = register_diffeomorphic(fixed, still, make_similarity(similarity))
    inside = fixed.tensor > 0.3
    before = truth.magnitude()[inside].mean()
    # Where the image is smooth no similarity sees the motion along its level lines.
    assert float(displacement_error(forward, truth)[inside].mean()) < 0.75 * float(before)
    difference = (warp(still, forward).tensor - fixed.tensor).abs()[inside].mean()
    assert float(difference) < 0.4 * float((still.tensor - fixed.tensor).abs()[inside].mean())
    assert folding(forward) == 0
    assert float(inverse_error(forward, backward)[inside].mean()) < 0.05


def test_images_on_two_grids_and_a_mask():
    fixed = head((64, 56), 2.0)
    other = resample(fixed, fixed.grid.resampled(3.0))
    mask = (fixed.tensor > 0.3).float()
    forward, _ = register_diffeomorphic(fixed, other, make_similarity("mse"), mask=mask, iterations=20)
    # The same image: what is left to move is less than a voxel.
    assert float(forward.magnitude()[fixed.tensor > 0.3].mean()) < 1.0


@pytest.mark.parametrize("shape", [(16, 16, 1), (5, 6), (9, 40)])
def test_small_and_thin_images(shape):
    image = head(shape, 2.0)
    forward, backward = register_diffeomorphic(image, image, make_similarity("mse"), iterations=3)
    assert torch.isfinite(forward.tensor).all()
    assert torch.isfinite(backward.tensor).all()
    assert np.isfinite(register_affine(image, image, iterations=3)).all()


def test_constant_images_are_no_crash():
    image = head((20, 20), 2.0)
    flat = image.with_tensor(torch.full_like(image.tensor, 3.0))
    forward, _ = register_diffeomorphic(flat, image, iterations=3)
    assert torch.isfinite(forward.tensor).all()
    assert np.isfinite(register_affine(flat, image, iterations=3)).all()


@pytest.mark.parametrize("shape", [(20, 18, 16), (24, 20, 5)])
def test_the_default_similarity_suits_small_volumes(shape):
    still = head(shape, 2.0)
    fixed = warp(still, Displacement.from_affine(known_affine(3), still.grid))
    forward, backward = register_diffeomorphic(fixed, still, iterations=10)
    assert torch.isfinite(forward.tensor).all()
    assert folding(forward) == 0
    assert float(inverse_error(forward, backward).mean()) < 0.1
