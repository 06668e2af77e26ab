"""The kernels of instance optimisation: smoothing, inverting, pulling and stepping, against their reference."""

import math

import pytest
import torch
from scipy import ndimage

from whence import kernels
from whence.kernels import dispatch
from whence.kernels.reference import descent, inversion, smoothing

SHAPES = [(17, 140), (11, 9, 13), (1, 8, 9), (6, 1, 7), (5, 1), (1, 6), (2, 2)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(shape, size, batch=1):
    field = random(batch, len(shape), *shape, seed=5)
    field = smoothing.gaussian(field, 2.5)
    return field * size / field.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.7])
def test_gaussian(shape, sigma):
    image = random(2, 3, *shape)
    ours = kernels.gaussian(image, sigma)
    assert torch.allclose(ours, smoothing.gaussian(image, sigma), atol=2e-6)
    widths = [sigma, 0.0, 2 * sigma][: len(shape)]
    assert torch.allclose(kernels.gaussian(image, widths), smoothing.gaussian(image, widths), atol=2e-6)
    strided = image.transpose(0, 1)
    assert torch.allclose(kernels.gaussian(strided, sigma), smoothing.gaussian(strided, sigma), atol=2e-6)


def test_gaussian_beside_scipy_and_with_a_gradient():
    image = random(1, 1, 30, 28, 26).double()
    theirs = ndimage.gaussian_filter(image[0, 0].numpy(), 1.5, mode="nearest", radius=round(4.5))
    # Both cut the Gaussian at a radius of four or five voxels.
    assert abs(kernels.gaussian(image.float(), 1.5)[0, 0].numpy() - theirs).max() < 1e-5
    wanted = random(1, 1, 9, 8).requires_grad_()
    kernels.gaussian(wanted, 1.0).sum().backward()
    assert wanted.grad is not None


@pytest.mark.parametrize("shape", [(17, 140), (11, 9, 13), (12, 1, 9), (1, 30)])
def test_solve_finds_where_points_come_from(shape):
    field = smooth_field(shape, 2.0, batch=2)
    for axis, n in enumerate(shape):
        if n == 1:
            field[:, axis] = 0
    targets = kernels.identity(shape) + 0.3 * random(1, len(shape), *shape)
    x = kernels.solve(field, targets, 1e-4)
    assert float((x + kernels.sample(field, x) - targets).abs().max()) < 2e-4
    assert torch.allclose(x, inversion.solve(field, targets, 1e-4), atol=1e-3)
    listed = kernels.solve(field, targets.flatten(2)[..., :40], 1e-4)
    assert torch.allclose(listed, x.flatten(2)[..., :40], atol=1e-3)


def test_solve_of_an_affine_is_its_inverse():
    here = kernels.identity((20, 24))
    field = 0.2 * (here - 10)
    inside = here[:, :, 6:14, 6:14]
    assert torch.allclose(kernels.solve(field, inside, 1e-5), 10 + (inside - 10) / 1.2, atol=1e-4)


def test_solve_ends_where_a_field_folds_or_is_unknown():
    field = -1.5 * (kernels.identity((20, 24)) - 10)
    assert torch.isfinite(kernels.solve(field, kernels.identity((20, 24)))).all()
    broken = smooth_field((20, 24), 1.0)
    broken[..., 3, 4] = math.nan
    found = kernels.solve(broken, kernels.identity((20, 24)))
    assert torch.isfinite(found[..., 10:, :]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_image_force(shape):
    image, slope = random(2, 3, *shape), random(2, 3, *shape, seed=1)
    scale = [1.0, 0.5, 2.0][: len(shape)]
    ours = kernels.image_force(image, slope, scale)
    assert torch.allclose(ours, descent.image_force(image, slope, scale), atol=1e-5)


def test_the_force_of_a_ramp_is_its_slope():
    ramp = (3 * torch.arange(9.0)).expand(1, 1, 7, 9).contiguous()
    force = kernels.image_force(ramp, torch.full_like(ramp, 2.0), [1.0, 1.0])
    assert torch.equal(force[0, 1, :, 1:-1], torch.full((7, 7), 6.0))
    assert float(force[0, 0].abs().max()) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_moment_step(shape):
    dims = len(shape)
    moments = [random(2, dims, *shape, seed=1), random(2, 1, *shape, seed=2).abs()]
    others = [m.clone() for m in moments]
    options = ((0.1, 0.01), (3.0, 4.0), 0.01, [1.0, 0.5, 2.0][:dims])
    for seed in (3, 4):
        force = random(2, dims, *shape, seed=seed)
        ours, theirs = kernels.moment_step(force, *moments, *options), descent.moment_step(force, *others, *options)
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(moments, others, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_an_operation_that_a_device_lacks_is_the_references():
    assert dispatch._written("cpu", "gaussian")
    assert not dispatch._written("cuda", "inversion")


@pytest.mark.parametrize("version", [kernels.solve, inversion.solve], ids=["fused", "reference"])
@pytest.mark.parametrize(("shape", "size"), [((40, 36), 9.0), ((20, 24, 22), 20.0)])
def test_solve_inverts_a_diffeomorphism_far_from_a_contraction(version, shape, size):
    here = kernels.identity(shape)
    tamed = torch.ones(shape)
    for axis, n in enumerate(shape):
        tamed = tamed * torch.sin(here[0, axis] * math.pi / (n - 1)).clamp_min(0).sqrt()
    field = kernels.exp(tamed * smooth_field(shape, size))
    determinant = kernels.jacobian_determinant(field)
    assert float(determinant.min()) > 0
    # The fixed point converges where u changes by less than a voxel from one voxel to the next.
    assert max(float(field.diff(dim=axis).abs().max()) for axis in range(2, field.ndim)) > 1.2
    x = version(field, here, 1e-3)
    assert float((x + kernels.sample(field, x) - here).abs().max()) < 1.1e-3


def test_solve_does_not_depend_on_the_order_of_points():
    field = smooth_field((24, 20), 12.0)
    assert float(kernels.jacobian_determinant(field).min()) < 0
    points = 20 * random(1, 2, 300).abs()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    found = kernels.solve(field, points)
    assert torch.equal(found[..., order], kernels.solve(field, points[..., order]))
    # A fold sends several points to one place: which is found depends on where the search starts.
    start = points + 4 * random(1, 2, 300, seed=3)
    for version in (kernels.solve, inversion.solve):
        other = version(field, points, start=start)
        residual = (other + kernels.sample(field, other) - points).abs().amax(dim=1) < 1e-2
        assert float(residual.float().mean()) > 0.5
        assert float((other - found)[:, :, residual[0]].abs().max()) > 1


def test_gradients_of_solve_are_those_of_the_inverse():
    field = smooth_field((9, 8), 1.0).double().requires_grad_()
    targets = (2 + 4 * random(1, 2, 5).double().abs().clamp_max(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, t: inversion.solve(u, t, 1e-11), (field, targets), eps=1e-7, atol=1e-5)
