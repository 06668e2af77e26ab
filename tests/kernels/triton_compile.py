"""Compile every GPU kernel for a GPU that need not be there: ``python triton_compile.py``, which says how many."""

from importlib import import_module

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton_cases import fused, random


class AbsentGpu:
    """What Triton asks a driver for while it compiles."""

    def __init__(self, target):
        self.target = target

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def compile_all(target):
    """Compile what every operation launches, forward and backward."""
    triton.runtime.driver.set_active(AbsentGpu(target))
    launch = import_module("whence.kernels.cuda.launch")
    seen = set()

    def run(kernel, programs, *arguments, warps=4, **constants):
        known = (kernel.__name__, kernel.__module__, *sorted(constants.items()))
        if known not in seen:
            seen.add(known)
            compiled = kernel.warmup(*arguments, grid=(programs,), num_warps=warps, **launch.OPTIONS, **constants)
            assert "tf32" not in compiled.asm.get("ptx", ""), known

    launch.run = run
    for shape in ((16, 32), (3, 4, 5), (1, 1, 1)):
        dims = len(shape)
        a, b, mask = random(2, 2, *shape), random(2, 2, *shape, seed=1), random(2, 1, *shape, seed=2)
        field, points = random(2, dims, *shape), random(2, dims, 7)
        for mode in ("linear", "nearest"):
            for outside in ("border", "zeros"):
                launched("warp", (a, field), mode, outside)
                launched("sample", (a[:1], points), mode, outside)
        launched("compose", (field, field[:1]))
        launched("exp", (field,), 2)
        launched("jacobian_determinant", (field,))
        for weight in (None, mask):
            launched("joint_histogram", (a, b), 16, weight)
            launched("local_correlation", (a, b), 9, 3e-3, weight)
            launched("local_correlation", (a,), b, 9, 3e-3, weight)
        launched("mind_descriptor", (a[:, :1],), 2, 2)
    print(f"{len(seen)} kernels")


def launched(name, inputs, *more):
    given = [i.clone().requires_grad_() for i in inputs]
    value = fused(name)(*given, *more)
    torch.autograd.grad(value, given, torch.ones_like(value))


if __name__ == "__main__":
    # The A100's compute capability.
    compile_all(GPUTarget("cuda", 80, 32))
