"""Fused CPU kernels against the reference: ordinary, extreme, strided, single-slice and NaN inputs; the dispatcher."""

import multiprocessing
import os
import subprocess
import sys

import pytest
import torch

from whence import kernels
from whence.errors import InputError
from whence.kernels import dispatch
from whence.kernels.reference import correlation, histogram, mind, sampling, transport

SHAPES = [(17, 140), (11, 9, 13), (1, 8, 9), (6, 1, 7), (5, 1), (1, 6)]
NAN = float("nan")


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """Each test sees the automatic choice and says so itself where it forces one."""
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def off_lattice(*shape, seed=1, scale=1.0):
    """Coordinates that float32 holds exactly and that are no voxels, where the slope would be a matter of rounding."""
    return (random(*shape, seed=seed, scale=scale) * 1024).round() / 1024 + 1 / 2048


def both(fused, reference, inputs, *more):
    """Value and gradients of both versions; the reference's in float64, as what rounding is measured by."""
    found = []
    for function, dtype in ((fused, torch.float32), (reference, torch.float64)):
        given = [i.detach().to(dtype, copy=True).requires_grad_() for i in inputs]
        value = function(*given, *[m.to(dtype) if isinstance(m, torch.Tensor) else m for m in more])
        weight = random(*value.shape, seed=9).to(dtype)
        grads = torch.autograd.grad(value, given, weight, allow_unused=True)
        grads = [torch.zeros_like(i) if g is None else g for i, g in zip(given, grads, strict=True)]
        found.append([value.detach(), *grads])
    return found


def agree(ours, theirs, tolerance=1e-5):
    """Each tensor within ``tolerance`` of the reference's range, NaN where it is NaN."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert torch.equal(mine.isnan(), other.isnan())
        scale = max(float(other.nan_to_num(0).abs().max()), 1e-3)
        assert float((mine - other).nan_to_num(0).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("outside", ["border", "zeros"])
class TestSampling:
    @pytest.mark.parametrize("size", [0.4, 6.0, 1e5])
    def test_warp(self, shape, mode, outside, size):
        image, field = random(2, 3, *shape), off_lattice(2, len(shape), *shape, scale=size)
        # Thousands of samples end in one voxel of the border: sums of float32 in another order.
        tolerance = 1e-5 if size < 1e5 else 5e-5
        agree(*both(kernels.warp, sampling.warp, (image, field), mode, outside), tolerance)

    def test_sample_on_another_lattice_and_in_a_list(self, shape, mode, outside):
        image = random(2, 2, *shape)
        for out in [(40,), (7, 9) if len(shape) == 2 else (5, 3, 8)]:
            points = off_lattice(2, len(shape), *out, scale=5.0)
            agree(*both(kernels.sample, sampling.sample, (image, points), mode, outside))

    def test_not_a_number(self, shape, mode, outside):
        image, field = random(1, 2, *shape), off_lattice(1, len(shape), *shape)
        field.view(-1)[[0, 3]] = NAN
        field.view(-1)[4] = float("inf")
        agree(*both(kernels.warp, sampling.warp, (image, field), mode, outside))
        if 1 not in shape:
            image.view(-1)[2] = NAN
            ours, theirs = both(kernels.warp, sampling.warp, (image, field.nan_to_num(0)), mode, outside)
            # An axis that is clamped has no slope; torch multiplies the NaN by 0 there.
            agree(ours[:2], theirs[:2])

    def test_strided_and_shared(self, shape, mode, outside):
        image = random(*shape, 2, 1).movedim((-2, -1), (1, 0))
        field = off_lattice(*shape, len(shape), 3).movedim((-2, -1), (1, 0))
        assert not field.is_contiguous()
        agree(*both(kernels.warp, sampling.warp, (image, field), mode, outside))
        agree(*both(kernels.warp, sampling.warp, (random(3, 1, *shape), field[:1]), mode, outside))


def test_a_field_at_rest_returns_the_image_and_its_gradient():
    image, still = random(1, 1, 6, 7, 8), torch.zeros(1, 3, 6, 7, 8)
    for outside in ("border", "zeros"):
        given = image.clone().requires_grad_()
        value = kernels.warp(given, still, outside=outside)
        assert torch.equal(value, image)
        value.sum().backward()
        assert torch.equal(given.grad, torch.ones_like(image))


def test_a_clamped_coordinate_has_no_slope():
    image = random(1, 1, 5, 6)
    field = torch.zeros(1, 2, 5, 6).requires_grad_()
    grad = torch.autograd.grad(kernels.warp(image, field).sum(), field)[0]
    assert not grad[0, 0, [0, -1]].any()
    assert not grad[0, 1, :, [0, -1]].any()
    assert grad[0, :, 1:-1, 1:-1].abs().min() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_compose(shape):
    first, second = off_lattice(2, len(shape), *shape, scale=2.0), random(2, len(shape), *shape)
    agree(*both(kernels.compose, transport.compose, (first, second)))
    agree(*both(kernels.compose, transport.compose, (first[:1], second)))


@pytest.mark.parametrize("shape", [*SHAPES, (7, 8, 150)])
def test_exp(shape):
    coarse = random(2, len(shape), *[max(1, n // 4) for n in shape], scale=2.0)
    # Smooth, as velocities are: a rough one makes a chaotic flow, where rounding grows at each squaring.
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    velocity = torch.nn.functional.interpolate(coarse, shape, mode=mode)
    for steps in (1, 7):
        agree(*both(kernels.exp, transport.exp, (velocity,), steps), 3e-5)
    with torch.no_grad():
        assert torch.equal(kernels.exp(velocity), kernels.exp(velocity.clone().requires_grad_()))


@pytest.mark.parametrize("shape", [(9, 10), (6, 7, 8)])
def test_exp_keeps_an_unknown_velocity_unknown(shape):
    velocity = random(1, len(shape), *shape, scale=0.3)
    velocity.view(-1)[20] = NAN
    ours, theirs = kernels.exp(velocity, 3), transport.exp(velocity.double(), 3)
    agree([ours], [theirs])
    assert ours.isnan().any()
    assert not ours.isnan().all()


@pytest.mark.parametrize("shape", [*SHAPES, (2, 2), (2, 3, 2)])
def test_jacobian_determinant(shape):
    field = random(2, len(shape), *shape)
    agree(*both(kernels.jacobian_determinant, transport.jacobian_determinant, (field,)))
    if len(shape) == 3:
        agree(*both(kernels.jacobian_determinant, transport.jacobian_determinant, (field.transpose(2, 4),)))


@pytest.mark.parametrize("bins", [5, 16, 32, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_joint_histogram(bins, masked):
    shape = (9, 11) if bins < 32 else (6, 7, 8)
    a, b = random(2, 2, *shape) * 0.4 + 0.5, random(2, 2, *shape, seed=1) * 0.4 + 0.5
    a.view(-1)[:2] = torch.tensor([0.0, 1.0])
    mask = (random(2, 1, *shape, seed=2) > 0).float() * 0.7 if masked else None
    agree(*both(kernels.joint_histogram, histogram.joint_histogram, (a, b), bins, mask))
    agree(*both(kernels.joint_histogram, histogram.joint_histogram, (a.transpose(2, 3), b.transpose(2, 3)), bins))


def test_a_large_histogram_is_its_shares_together():
    a, b = random(1, 1, 40, 50, 70) * 0.2 + 0.5, random(1, 1, 40, 50, 70, seed=1) * 0.2 + 0.5
    agree(*both(kernels.joint_histogram, histogram.joint_histogram, (a, b), 32))


def test_an_unknown_intensity_shows_in_the_histogram():
    a, b = random(1, 1, 8, 9) * 0.2 + 0.5, random(1, 1, 8, 9, seed=1) * 0.2 + 0.5
    a[0, 0, 3, 3] = NAN
    ours, theirs = (f(a, b, 16) for f in (kernels.joint_histogram, histogram.joint_histogram))
    agree([ours], [theirs])
    assert ours.isnan().any()


def test_what_a_mask_leaves_out_may_be_unknown():
    a, b, mask = random(1, 1, 12, 10), random(1, 1, 12, 10), torch.ones(1, 1, 12, 10)
    mask[..., :3] = 0
    expected = kernels.joint_histogram(a, b, 16, mask)
    a[..., 1], b[..., 2] = NAN, NAN
    found = both(kernels.joint_histogram, histogram.joint_histogram, (a, b), 16, mask)
    agree(*found)
    assert not any(part.isnan().any() for part in found[0])
    assert torch.allclose(found[0][0], expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [3, 9, 31])
@pytest.mark.parametrize("masked", [False, True])
def test_local_correlation(shape, window, masked):
    a = random(2, 2, *shape)
    b = 0.5 * a + random(2, 2, *shape, seed=1)
    mask = (random(2, 1, *shape, seed=2) > 0).float() if masked else None
    if masked:
        mask[:, :, : shape[0] // 2] = 0
    more = (window, 3e-3, mask)
    # A mask leaves windows of two samples, where the reference in float32 is 1e-2 off.
    tolerance = 1e-3 if masked and window == 3 else 1e-5
    agree(*both(kernels.local_correlation, correlation.local_correlation, (a, b), *more), tolerance)
    # One gradient alone takes another path.
    alone = both(
        lambda y, m: kernels.local_correlation(a, y, window, 3e-3, m),
        lambda y, m: correlation.local_correlation(a.double(), y, window, 3e-3, m),
        (b,),
        mask,
    )
    agree(*alone, tolerance)


def test_local_correlation_far_from_zero():
    a, b = random(1, 1, 20, 21) + 1000, random(1, 1, 20, 21, seed=1) - 500
    agree(*both(kernels.local_correlation, correlation.local_correlation, (a, b)))


def test_local_correlation_of_an_unknown_voxel_stays_in_its_window():
    a, b = random(1, 1, 20, 21), random(1, 1, 20, 21, seed=1)
    a[0, 0, 4, 4] = NAN
    value = kernels.local_correlation(a, b, 5)
    assert torch.equal(value.isnan(), correlation.local_correlation(a, b, 5).isnan())
    assert int(value.isnan().sum()) == 25


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ((5, 1), (1, 6))])
@pytest.mark.parametrize(("radius", "dilation"), [(2, 2), (1, 1)])
def test_mind(shape, radius, dilation):
    image = random(2, 1, *shape)
    # The bound on flat places is a quotient of sums over the image.
    agree(*both(kernels.mind_descriptor, mind.mind_descriptor, (image,), radius, dilation), 2e-5)
    image.view(-1)[0] = NAN
    agree([kernels.mind_descriptor(image)], [mind.mind_descriptor(image.double())], 1e-4)


def everything():
    """Value and gradients of each operation, on images large enough for several tasks."""
    image, other = random(1, 1, 24, 25, 26), random(1, 1, 24, 25, 26, seed=1)
    field = random(1, 3, 24, 25, 26, seed=2)
    calls = {
        "warp": (kernels.warp, (image, field)),
        "compose": (kernels.compose, (field, field.flip(2))),
        "exp": (lambda v: kernels.exp(v, 4), (field,)),
        "jacobian": (kernels.jacobian_determinant, (field,)),
        "histogram": (lambda a, b: kernels.joint_histogram(a, b, 16), (image, other)),
        "correlation": (kernels.local_correlation, (image, other)),
        "mind": (kernels.mind_descriptor, (image,)),
    }
    found = {}
    for name, (function, inputs) in calls.items():
        given = [i.clone().requires_grad_() for i in inputs]
        value = function(*given)
        found[name] = [value.detach(), *torch.autograd.grad(value, given, random(*value.shape, seed=5))]
    return found


def test_results_do_not_depend_on_the_number_of_threads():
    torch.set_num_threads(1)
    alone = everything()
    torch.set_num_threads(2)
    together = everything()
    for name, tensors in alone.items():
        for one, two in zip(tensors, together[name], strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6, msg=name)
    for name in ("warp", "compose", "exp", "histogram"):
        assert all(torch.equal(one, two) for one, two in zip(alone[name], together[name], strict=True)), name


def test_threads_stay_as_they_were_set():
    torch.set_num_threads(1)
    kernels.warp(random(1, 1, 8, 8), random(1, 2, 8, 8))
    assert torch.get_num_threads() == 1


class TestDispatch:
    def test_float32_on_a_cpu_is_fused(self):
        assert dispatch.backend(random(1, 1, 4, 4)) == "cpu"

    def test_other_types_and_mixtures_go_to_the_reference(self):
        image = random(1, 1, 4, 4)
        for tensors in [(image.double(),), (image.half(),), (image, image.double()), (image[:0],)]:
            assert dispatch.backend(*tensors) == "reference"
        assert dispatch.backend(image.to("meta")) == "reference"

    @pytest.mark.parametrize(("forced", "chosen"), [("reference", "reference"), ("cuda", "reference"), ("cpu", "cpu")])
    def test_the_environment_decides(self, monkeypatch, forced, chosen):
        monkeypatch.setenv(dispatch.VARIABLE, forced)
        assert dispatch.backend(random(1, 1, 4, 4)) == chosen

    def test_an_unknown_name_is_refused(self, monkeypatch):
        monkeypatch.setenv(dispatch.VARIABLE, "gpu")
        with pytest.raises(InputError, match="WHENCE_KERNELS is reference, cpu or cuda; got 'gpu'"):
            kernels.exp(random(1, 2, 4, 4))

    def test_what_does_not_fit_gets_the_reference_s_complaint(self):
        with pytest.raises(ValueError, match="expected mode"):
            kernels.sample(random(1, 1, 3, 3), random(1, 2, 3, 3), "cubic")
        with pytest.raises(ValueError, match="not on one lattice"):
            kernels.warp(random(1, 1, 3, 3), random(1, 2, 3, 4))
        with pytest.raises(ValueError, match="at least 5 bins"):
            kernels.joint_histogram(random(1, 1, 3, 3), random(1, 1, 3, 3), 4)
        with pytest.raises(ValueError, match="odd"):
            kernels.local_correlation(random(1, 1, 9, 9), random(1, 1, 9, 9), 4)

    def test_a_mask_with_a_gradient_gets_one(self):
        mask = torch.rand(1, 1, 6, 6).requires_grad_()
        kernels.joint_histogram(torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6), 8, mask)[0, 0].sum().backward()
        assert mask.grad is not None


def test_nothing_is_compiled_on_import():
    code = "import sys, whence, whence.field, whence.losses; sys.exit('numba' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def _warp_in_a_child(queue):
    queue.put((dispatch.backend(random(1, 1, 6, 6)), kernels.warp(random(1, 1, 6, 6), random(1, 2, 6, 6)).tolist()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_keeps_off_its_parent_s_threads():
    here = kernels.warp(random(1, 1, 6, 6), random(1, 2, 6, 6))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_warp_in_a_child, args=(queue,))
    child.start()
    name, there = queue.get(timeout=60)
    child.join(60)
    assert name == "reference"
    torch.testing.assert_close(torch.tensor(there), here, rtol=1e-5, atol=1e-5)


def test_a_graph_may_be_gone_through_twice():
    a, b, weight = random(1, 1, 14, 12), random(1, 1, 14, 12, seed=1), random(1, 1, 14, 12, seed=2)
    a.requires_grad_()
    value = kernels.local_correlation(a, b, 5)
    torch.autograd.grad((value * weight).sum(), a, retain_graph=True)
    (second,) = torch.autograd.grad(value.sum(), a)
    (expected,) = torch.autograd.grad(kernels.local_correlation(a, b, 5).sum(), a)
    assert torch.equal(second, expected)


def test_the_scale_of_a_mask_does_not_matter():
    a, b = random(1, 1, 14, 12), random(1, 1, 14, 12, seed=1)
    mask = (random(1, 1, 14, 12, seed=2) > 0).float()
    whole, faint = (kernels.local_correlation(a, b, 5, 3e-3, mask * scale) for scale in (1, 1e-8))
    assert torch.allclose(whole, faint, atol=1e-6)
    assert float(whole.max()) > 0


@pytest.mark.parametrize("sigmas", [(1.0,), (1.0, 1.0), (1.0,) * 4])
def test_a_gaussian_needs_a_width_for_each_axis(sigmas):
    with pytest.raises(ValueError, match=f"each of 3 axes, is expected; got {len(sigmas)}"):
        kernels.gaussian(torch.zeros(1, 1, 6, 7, 8), sigmas)
