"""Reference kernels against direct computation and finite differences."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from whence import kernels
from whence.kernels import reference


def random(*shape, seed=0, grad=False):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_(grad)


def off_lattice(*shape, seed=0, size=0.3):
    """Displacements that keep samples off the lattice, where linear interpolation has no derivative."""
    return (random(*shape, seed=seed) * size + 0.1).requires_grad_()


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("outside", "scipy_mode"), [("border", "nearest"), ("zeros", "constant")])
def test_sample_is_scipys_map_coordinates(shape, mode, outside, scipy_mode):
    image = random(1, 2, *shape)
    points = random(1, len(shape), 50, seed=1) * (torch.tensor(shape) + 1.0).reshape(1, -1, 1) - 1
    ours = kernels.sample(image, points, mode, outside)[0]
    order = 1 if mode == "linear" else 0
    if outside == "zeros":
        # scipy's constant cuts at the outer centres unless padded.
        padded = np.pad(image[0].numpy(), ((0, 0), *[(2, 2)] * len(shape)))
        theirs = [map_coordinates(c, points[0].numpy() + 2, order=order) for c in padded]
    else:
        theirs = [map_coordinates(c, points[0].numpy(), order=order, mode=scipy_mode) for c in image[0].numpy()]
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs), atol=1e-10)


def test_an_integer_coordinate_returns_its_voxel():
    image = random(2, 3, 4, 5, 6)
    here = kernels.identity((4, 5, 6), dtype=torch.float64)
    torch.testing.assert_close(kernels.sample(image, here), image, rtol=0, atol=1e-12)
    assert torch.equal(kernels.sample(image, here, "nearest"), image)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_of_one_voxel_fades_to_zero_outside(axis):
    shape = [4, 5, 6]
    shape[axis] = 1
    image = random(1, 1, *shape) + 1
    here = kernels.identity(tuple(shape), dtype=torch.float64)
    unit = torch.zeros(1, 3, 1, 1, 1, dtype=torch.float64)
    unit[:, axis] = 1
    for away, share in ((0.0, 1.0), (0.25, 0.75), (-0.25, 0.75), (1.0, 0.0), (-3.0, 0.0)):
        moved = here + away * unit
        torch.testing.assert_close(kernels.sample(image, moved, "linear", "zeros"), image * share)
        torch.testing.assert_close(kernels.sample(image, moved, "linear", "border"), image)
    for away, share in ((0.4, 1.0), (-0.5, 1.0), (0.6, 0.0), (-2.0, 0.0)):
        torch.testing.assert_close(kernels.sample(image, here + away * unit, "nearest", "zeros"), image * share)


def test_an_axis_of_one_voxel_behaves_as_one_padded_with_zeros():
    image = random(1, 2, 5, 1, 6)
    padded = torch.nn.functional.pad(image, (0, 0, 1, 1))
    points = random(1, 3, 40, seed=3) * torch.tensor([6.0, 3.0, 7.0]).reshape(1, 3, 1) - 1
    ours = kernels.sample(image, points - torch.tensor([0.0, 0.5, 0.0]).reshape(1, 3, 1), "linear", "zeros")
    theirs = kernels.sample(padded, points + torch.tensor([0.0, 0.5, 0.0]).reshape(1, 3, 1), "linear", "zeros")
    torch.testing.assert_close(ours, theirs)


def test_one_image_serves_a_batch_of_fields_and_back():
    image, fields = random(1, 1, 5, 5), random(3, 2, 5, 5, seed=2)
    many = kernels.warp(image, fields)
    one_by_one = torch.cat([kernels.warp(image, f[None]) for f in fields])
    torch.testing.assert_close(many, one_by_one)
    assert kernels.warp(random(3, 1, 5, 5), fields[:1]).shape == (3, 1, 5, 5)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="expected mode"):
        kernels.sample(random(1, 1, 3, 3), random(1, 2, 3, 3), "cubic")
    with pytest.raises(ValueError, match="sampled at"):
        kernels.sample(random(1, 1, 3, 3), random(1, 3, 3, 3))
    with pytest.raises(ValueError, match="not on one lattice"):
        kernels.warp(random(1, 1, 3, 3), random(1, 2, 3, 4))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 3)])
class TestGradients:
    """Each derivative against finite differences in float64."""

    def check(self, function, *inputs):
        assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-5)

    @pytest.mark.parametrize("outside", ["border", "zeros"])
    def test_sample(self, shape, outside):
        points = kernels.identity(shape, dtype=torch.float64) + off_lattice(1, len(shape), *shape, seed=1).detach()
        self.check(
            lambda i, p: reference.sampling.sample(i, p, "linear", outside),
            random(1, 2, *shape, grad=True),
            points.requires_grad_(),
        )

    def test_sample_off_a_single_slice(self, shape):
        shape = (*shape[:-1], 1)
        points = kernels.identity(shape, dtype=torch.float64) + off_lattice(1, len(shape), *shape, seed=1).detach()
        self.check(
            lambda i, p: reference.sampling.sample(i, p, "linear", "zeros"),
            random(1, 2, *shape, grad=True),
            points.requires_grad_(),
        )

    def test_warp(self, shape):
        self.check(
            lambda i, u: reference.sampling.warp(i, u),
            random(2, 1, *shape, grad=True),
            off_lattice(2, len(shape), *shape, seed=1),
        )

    def test_compose(self, shape):
        dims = len(shape)
        self.check(reference.transport.compose, off_lattice(1, dims, *shape), off_lattice(1, dims, *shape, seed=1))

    def test_exp(self, shape):
        self.check(lambda v: reference.transport.exp(v, 3), off_lattice(1, len(shape), *shape))

    def test_jacobian_determinant(self, shape):
        self.check(reference.transport.jacobian_determinant, off_lattice(1, len(shape), *shape))

    def test_joint_histogram(self, shape):
        a = (random(1, 1, *shape) * 0.9 + 0.05).requires_grad_()
        b = (random(1, 1, *shape, seed=1) * 0.9 + 0.05).requires_grad_()
        mask = random(1, 1, *shape, seed=2)
        self.check(lambda x, y: reference.histogram.joint_histogram(x, y, 8, mask), a, b)

    def test_local_correlation(self, shape):
        self.check(
            lambda x, y: reference.correlation.local_correlation(x, y, window=3, epsilon=1e-2),
            random(1, 1, *shape, grad=True),
            random(1, 1, *shape, seed=1, grad=True),
        )

    def test_mind(self, shape):
        # Its bounds treat the typical variance as a constant, so they must not bind here: they do not for noise.
        self.check(lambda x: reference.mind.mind_descriptor(x, radius=1, dilation=1), random(1, 1, *shape, grad=True))


def direct_histogram(a, b, bins, weight):
    """The definition: every sample times every bin."""

    def spline(x):
        x = np.abs(x)
        return np.where(x < 1, (4 - 6 * x**2 + 3 * x**3) / 6, np.where(x < 2, (2 - x) ** 3 / 6, 0))

    centres = np.arange(bins)
    window_a = spline(np.clip(a, 0, 1).ravel()[:, None] * (bins - 3) + 1 - centres)
    window_b = spline(np.clip(b, 0, 1).ravel()[:, None] * (bins - 3) + 1 - centres)
    return (window_a * weight.ravel()[:, None]).T @ window_b / weight.sum()


def information(joint):
    joint = np.asarray(joint)
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / outer[seen])).sum())


@pytest.mark.parametrize("bins", [5, 16, 32])
@pytest.mark.parametrize("masked", [False, True])
def test_joint_histogram_is_its_definition(bins, masked):
    a, b = random(2, 1, 9, 11) * 1.4 - 0.2, random(2, 1, 9, 11, seed=1)
    # Exactly the ends of the range, where a window is easily lost.
    a[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    mask = (random(2, 1, 9, 11, seed=2) > 0.4).double() if masked else torch.ones(2, 1, 9, 11)
    ours = kernels.joint_histogram(a, b, bins, mask if masked else None)
    for i in range(2):
        theirs = direct_histogram(a[i].numpy(), b[i].numpy(), bins, mask[i].numpy())
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-12)
        assert information(ours[i]) == pytest.approx(information(theirs), abs=1e-10)
    torch.testing.assert_close(ours.sum(dim=(1, 2)), torch.ones(2, dtype=torch.float64))


def test_information_of_independent_and_of_equal_images():
    a = random(1, 1, 200, 200)
    assert information(kernels.joint_histogram(a, random(1, 1, 200, 200, seed=5), 16)[0]) < 0.02
    assert information(kernels.joint_histogram(a, a, 16)[0]) > 1.0
    # Information knows no sign: a contrast reversed says as much.
    flipped = information(kernels.joint_histogram(a, 1 - a, 16)[0])
    assert flipped == pytest.approx(information(kernels.joint_histogram(a, a, 16)[0]), rel=1e-9)


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
def test_local_correlation_is_its_definition(shape):
    a, b = random(1, 1, *shape), random(1, 1, *shape, seed=1)
    ours = kernels.local_correlation(a, b, window=5, epsilon=0.0)[0, 0].numpy()
    x, y = a[0, 0].numpy(), b[0, 0].numpy()
    for index in [(0,) * len(shape), (3, 4, 2)[: len(shape)], tuple(n - 1 for n in shape)]:
        window = tuple(slice(max(i - 2, 0), i + 3) for i in index)
        expected = np.corrcoef(x[window].ravel(), y[window].ravel())[0, 1] ** 2
        assert ours[index] == pytest.approx(expected, rel=1e-6)
    linear = kernels.local_correlation(a, 3 - 2 * a, window=5, epsilon=1e-5)
    torch.testing.assert_close(linear, torch.ones_like(linear), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("shape", "count"), [((12, 12), 4), ((9, 9, 9), 12)])
def test_mind_ignores_gain_offset_and_sign(shape, count):
    image = random(1, 1, *shape)
    descriptor = kernels.mind_descriptor(image)
    assert descriptor.shape == (1, count, *shape)
    assert 0 < float(descriptor.min()) <= float(descriptor.max()) <= 1
    torch.testing.assert_close(kernels.mind_descriptor(5 - 3 * image), descriptor, atol=1e-8, rtol=0)
    assert torch.isfinite(kernels.mind_descriptor(torch.ones_like(image))).all()
