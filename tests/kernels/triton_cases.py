"""Comparisons of the GPU kernels with the reference: run on a GPU, or as a script by Triton's interpreter on a CPU.

``python triton_cases.py RESULT.json`` (with TRITON_INTERPRET=1) writes what each case says: nothing, or its failure.
"""

import json
import os
import sys
import traceback
from importlib import import_module

import torch

from whence import kernels
from whence.kernels.reference import correlation, histogram, mind, sampling, transport

NAN = float("nan")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
# The interpreter takes milliseconds for a program: a few voxels each, an axis of one among them.
INTERPRETED_SHAPES = [(3, 9), (1, 5), (2, 2, 4), (3, 1, 4)]
SHAPES = INTERPRETED_SHAPES if INTERPRETED else [(17, 300), (5, 1), (70, 5, 80), (11, 9, 13), (1, 8, 9), (6, 1, 7)]
BATCH = 1 if INTERPRETED else 2
MODULES = {
    "sample": ("sampling", sampling),
    "warp": ("sampling", sampling),
    "compose": ("sampling", transport),
    "exp": ("exponential", transport),
    "jacobian_determinant": ("jacobian", transport),
    "joint_histogram": ("histogram", histogram),
    "local_correlation": ("correlation", correlation),
    "mind_descriptor": ("mind", mind),
}


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def off_lattice(*shape, seed=1, scale=1.0):
    """Coordinates that float32 holds exactly and that are no voxels, where the slope would be a matter of rounding."""
    return (random(*shape, seed=seed, scale=scale) * 1024).round() / 1024 + 1 / 2048


def fused(name):
    """The kernel as users reach it on a GPU; the interpreter's tensors lie on the CPU, and pass the dispatcher by."""
    if DEVICE.type == "cuda":
        return getattr(kernels, name)
    return getattr(import_module(f"whence.kernels.cuda.{MODULES[name][0]}"), name)


def both(name, inputs, *more):
    """Value and gradients of both versions; the reference's in float64, as what rounding is measured by."""
    found = []
    for function, device, dtype in (
        (fused(name), DEVICE, torch.float32),
        (getattr(MODULES[name][1], name), torch.device("cpu"), torch.float64),
    ):
        given = [i.detach().to(device, dtype, copy=True).requires_grad_() for i in inputs]
        # A copy would be contiguous where the case is not.
        assert all(g.stride() == i.stride() for g, i in zip(given, inputs, strict=True))
        value = function(*given, *[m.to(device, dtype) if isinstance(m, torch.Tensor) else m for m in more])
        weight = random(*value.shape[::-1], seed=9).to(device, dtype).permute(*reversed(range(value.ndim)))
        grads = torch.autograd.grad(value, given, weight, allow_unused=True)
        grads = [torch.zeros_like(i) if g is None else g for i, g in zip(given, grads, strict=True)]
        found.append([value.detach().cpu(), *[g.cpu() for g in grads]])
    return found


def agree(ours, theirs, tolerance=1e-5):
    """Each tensor within ``tolerance`` of the reference's range, NaN where it is NaN."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert torch.equal(mine.isnan(), other.isnan()), "NaN elsewhere"
        scale = max(float(other.nan_to_num(0).abs().max()), 1e-3)
        worst = float((mine - other).nan_to_num(0).abs().max()) / scale
        assert worst <= tolerance, f"{worst:.1e} of the range"


def _each(function):
    """A sampling case for each mode and outside."""
    for mode in ("linear", "nearest"):
        for outside in ("border", "zeros"):
            function(mode, outside)


def warp(shape):
    def case(mode, outside):
        for size in (0.4, 6.0):
            field = off_lattice(BATCH, len(shape), *shape, scale=size)
            agree(*both("warp", (random(BATCH, 3, *shape), field), mode, outside))

    _each(case)


def warp_from_far_outside(shape):
    def case(mode, outside):
        image, field = random(BATCH, 2, *shape), off_lattice(BATCH, len(shape), *shape, scale=1e5)
        # Thousands of samples end in one voxel of the border: sums of float32 in another order.
        agree(*both("warp", (image, field), mode, outside), 5e-5)

    _each(case)


def sample_elsewhere(shape):
    def case(mode, outside):
        for out in (
            [(18,), (4, 3) if len(shape) == 2 else (2, 3, 2)] if INTERPRETED else [(400,), (7, 3, 40)[-len(shape) :]]
        ):
            points = off_lattice(BATCH, len(shape), *out, scale=5.0)
            agree(*both("sample", (random(BATCH, 2, *shape), points), mode, outside))

    _each(case)


def warp_unknown(shape):
    def case(mode, outside):
        image, field = random(1, 2, *shape), off_lattice(1, len(shape), *shape)
        field.view(-1)[[0, 3]] = NAN
        field.view(-1)[4] = float("inf")
        agree(*both("warp", (image, field), mode, outside))
        if 1 not in shape:
            image.view(-1)[2] = NAN
            ours, theirs = both("warp", (image, field.nan_to_num(0)), mode, outside)
            # An axis that is clamped has no slope; torch multiplies the NaN by 0 there.
            agree(ours[:2], theirs[:2])

    _each(case)


def warp_strided_and_shared(shape):
    def case(mode, outside):
        image = random(*shape, 2, 1).movedim((-2, -1), (1, 0))
        field = off_lattice(*shape, len(shape), 3).movedim((-2, -1), (1, 0))
        assert not field.is_contiguous()
        agree(*both("warp", (image, field), mode, outside))
        agree(*both("warp", (random(3, 1, *shape), off_lattice(1, len(shape), *shape)), mode, outside))

    _each(case)


def warp_one_gradient(shape):
    image, field = random(2, 1, *shape), off_lattice(2, len(shape), *shape)
    wanted = both("warp", (image, field), "linear", "border")[1]
    weight = random(*image.shape[::-1], seed=9).permute(*reversed(range(image.ndim))).to(DEVICE)
    for which in (0, 1):
        given = [image.to(DEVICE, copy=True), field.to(DEVICE, copy=True)]
        given[which].requires_grad_()
        value = fused("warp")(*given, "linear", "border")
        agree([torch.autograd.grad(value, given[which], weight)[0].cpu()], [wanted[1 + which]])


def compose(shape):
    first, second = off_lattice(2, len(shape), *shape, scale=2.0), random(2, len(shape), *shape)
    agree(*both("compose", (first, second)))
    agree(*both("compose", (first[:1], second)))


def exp(shape):
    coarse = random(BATCH, len(shape), *[max(1, n // 4) for n in shape], scale=2.0)
    # Smooth, as velocities are: a rough one makes a chaotic flow, where rounding grows at each squaring.
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    velocity = torch.nn.functional.interpolate(coarse, shape, mode=mode)
    for steps in (1, 7):
        agree(*both("exp", (velocity,), steps), 3e-5)
    given = velocity.to(DEVICE)
    assert torch.equal(fused("exp")(given, 7), fused("exp")(given.clone().requires_grad_(), 7))


def exp_unknown(shape):
    velocity = random(1, len(shape), *shape, scale=0.3)
    velocity.view(-1)[-1] = NAN
    ours, theirs = both("exp", (velocity,), 3)
    agree(ours[:1], theirs[:1])
    assert ours[0].isnan().any()


def jacobian(shape):
    field = random(BATCH, len(shape), *shape)
    agree(*both("jacobian_determinant", (field,)))
    agree(*both("jacobian_determinant", (field.transpose(2, -1),)))


def joint_histogram(shape):
    for bins in (5, 32):
        a, b = random(2, 2, *shape) * 0.4 + 0.5, random(2, 2, *shape, seed=1) * 0.4 + 0.5
        a.view(-1)[:2] = torch.tensor([0.0, 1.0])
        mask = (random(2, 1, *shape, seed=2) > 0).float() * 0.7
        mask.view(-1)[0] = 1
        for weight in (None, mask, mask[:1]):
            agree(*both("joint_histogram", (a, b), bins, weight))
        agree(*both("joint_histogram", (a.transpose(2, 3), b.transpose(2, 3)), bins, None))


def joint_histogram_unknown(shape):
    a, b = random(1, 1, *shape) * 0.2 + 0.5, random(1, 1, *shape, seed=1) * 0.2 + 0.5
    a.view(-1)[1] = NAN
    for weight in (None, torch.ones(1, 1, *shape)):
        ours, theirs = both("joint_histogram", (a, b), 16, weight)
        agree(ours, theirs)
        assert ours[0].isnan().any()


def local_correlation(shape):
    windows = ((5,) if 1 in shape else (3,)) if INTERPRETED else (3, 9, 31, 61)
    for window in windows:
        a = random(2, BATCH, *shape)
        b = 0.5 * a + random(2, BATCH, *shape, seed=1)
        mask = (random(2, 1, *shape, seed=2) > 0).float()
        mask[:, :, : shape[0] // 2] = 0
        for weight in (None, mask):
            # A mask leaves windows of two samples, where the reference in float32 is 1e-2 off.
            tolerance = 1e-3 if weight is not None and window < 9 else 1e-5
            agree(*both("local_correlation", (a, b), window, 3e-3, weight), tolerance)


def local_correlation_one_gradient(shape):
    if INTERPRETED and 1 not in shape:
        return
    a, b = random(1, 1, *shape), random(1, 1, *shape, seed=1) - 500
    wanted = both("local_correlation", (a, b), 5, 3e-3, None)[1]
    weight = random(*a.shape[::-1], seed=9).permute(*reversed(range(a.ndim))).to(DEVICE)
    for which in (0, 1):
        given = [a.to(DEVICE, copy=True), b.to(DEVICE, copy=True)]
        given[which].requires_grad_()
        value = fused("local_correlation")(*given, 5, 3e-3, None)
        agree([torch.autograd.grad(value, given[which], weight)[0].cpu()], [wanted[1 + which]])


def local_correlation_strided(shape):
    if INTERPRETED and 1 not in shape:
        return
    a, b = random(*shape, 2, 1).movedim((-2, -1), (1, 0)), random(*shape, 2, 1, seed=1).movedim((-2, -1), (1, 0))
    agree(*both("local_correlation", (a, b), 3, 3e-3, None))


def mind_descriptor(shape):
    if 1 in shape and len(shape) == 2:
        return
    if INTERPRETED:
        shape = tuple(min(n, 4) for n in shape)
    for radius, dilation in ((1, 2),) if INTERPRETED and len(shape) == 3 else ((2, 2), (1, 1)):
        image = random(BATCH, 1, *shape)
        # The bound on flat places is a quotient of sums over the image.
        agree(*both("mind_descriptor", (image.transpose(2, -1),), radius, dilation), 2e-5)


def descriptors_unknown(shape):
    """A NaN never leaves a sliding sum: the dispatcher passes it on to the reference."""
    if DEVICE.type == "cpu" or 1 in shape:
        return
    a, b = random(1, 1, *shape), random(1, 1, *shape, seed=1)
    a.view(-1)[0] = NAN
    agree(
        both("local_correlation", (a, b), 5, 3e-3, None)[0][:1], both("local_correlation", (a, b), 5, 3e-3, None)[1][:1]
    )
    agree(*[found[:1] for found in both("mind_descriptor", (a,), 2, 2)], 1e-4)


FUNCTIONS = {
    function.__name__: function
    for function in (
        warp,
        warp_from_far_outside,
        sample_elsewhere,
        warp_unknown,
        warp_strided_and_shared,
        warp_one_gradient,
        compose,
        exp,
        exp_unknown,
        jacobian,
        joint_histogram,
        joint_histogram_unknown,
        local_correlation,
        local_correlation_one_gradient,
        local_correlation_strided,
        mind_descriptor,
        descriptors_unknown,
    )
}
CASES = {
    f"{name}-{'x'.join(map(str, shape))}": (function, shape) for name, function in FUNCTIONS.items() for shape in SHAPES
}


def interpret(result):
    """Run all cases, and write what each says. Programs are so small that there are several even of these images."""
    launch = import_module("whence.kernels.cuda.launch")
    launch.BLOCK, launch.LANES, launch.slide = 16, 8, lambda radius: 2
    said = {}
    for name, (function, shape) in CASES.items():
        try:
            function(shape)
            said[name] = ""
        except Exception:
            said[name] = traceback.format_exc()
    with open(result, "w", encoding="utf-8") as file:
        json.dump(said, file)


if __name__ == "__main__":
    interpret(sys.argv[1])
