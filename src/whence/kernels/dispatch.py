"""Which version of an operation runs: the fused one of the tensors' device, or the reference.

Fused versions take float32 tensors of 2D or 3D images that lie on one device; whatever else comes goes to the
reference, which also words every complaint. ``WHENCE_KERNELS=reference|cpu|cuda`` leaves only the named
fused version, or none, for debugging. A device's package is imported when first needed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from whence.errors import InputError
from whence.kernels.reference import correlation, descent, histogram, inversion, mind, sampling, smoothing, transport
from whence.kernels.reference import labels as votes

VARIABLE = "WHENCE_KERNELS"
CHOICES = ("reference", "cpu", "cuda")


def backend(*tensors: torch.Tensor) -> str:
    """Name of the version that serves these tensors. Raises InputError for an unknown ``WHENCE_KERNELS``."""
    forced = os.environ.get(VARIABLE, "")
    if forced and forced not in CHOICES:
        raise InputError(f"{VARIABLE} is {', '.join(CHOICES[:-1])} or {CHOICES[-1]}; got {forced!r}")
    devices = {t.device.type for t in tensors}
    device = devices.pop() if len(devices) == 1 else ""
    fits = all(
        t.dtype == torch.float32 and t.layout == torch.strided and t.numel() > 0 and t[0, 0].numel() < 2**29
        for t in tensors
        if t.ndim in (3, 4, 5)
    )
    named = device in CHOICES[1:] and forced in ("", device)
    return device if named and fits and _ready(device) else "reference"


def sample(
    image: torch.Tensor, coordinates: torch.Tensor, mode: str = "linear", outside: str = "border"
) -> torch.Tensor:
    fits = (
        _is_image(image)
        and coordinates.ndim in (3, image.ndim)
        and coordinates.shape[1] == image.ndim - 2
        and _one_batch(image, coordinates)
        and mode in sampling.MODES
        and outside in sampling.OUTSIDE
    )
    return _run("sampling", "sample", sampling.sample, fits, (image, coordinates), mode, outside)


def sample_labels(labels: torch.Tensor, coordinates: torch.Tensor, outside: str = "border") -> torch.Tensor:
    fits = (
        _is_image(labels)
        and not labels.is_floating_point()
        and coordinates.ndim in (3, labels.ndim)
        and coordinates.shape[1] == labels.ndim - 2
        and _one_batch(labels, coordinates)
        and outside in sampling.OUTSIDE
        and labels.device == coordinates.device
    )
    # Labels are integers: the coordinates say which version serves.
    fused = _version("labels", "sample_labels", coordinates)
    return (fused if fused and fits else votes.sample_labels)(labels, coordinates, outside)


def warp(
    image: torch.Tensor, displacement: torch.Tensor, mode: str = "linear", outside: str = "border"
) -> torch.Tensor:
    fits = (
        _is_image(image)
        and tuple(displacement.shape[1:]) == (image.ndim - 2, *image.shape[2:])
        and _one_batch(image, displacement)
        and mode in sampling.MODES
        and outside in sampling.OUTSIDE
    )
    return _run("sampling", "warp", sampling.warp, fits, (image, displacement), mode, outside)


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    fits = _is_field(first) and first.shape[1:] == second.shape[1:] and _one_batch(first, second)
    return _run("sampling", "compose", transport.compose, fits, (first, second))


def exp(velocity: torch.Tensor, steps: int = 7) -> torch.Tensor:
    return _run("exponential", "exp", transport.exp, _is_field(velocity), (velocity,), steps)


def solve(
    displacement: torch.Tensor,
    targets: torch.Tensor,
    tolerance: float = 1e-3,
    iterations: int = 100,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    fits = (
        _is_field(displacement)
        and targets.ndim >= 3
        and targets.shape[1] == displacement.shape[1]
        and _one_batch(displacement, targets)
        and not (displacement.requires_grad or targets.requires_grad)
    )
    return _run("inversion", "solve", inversion.solve, fits, (displacement, targets), tolerance, iterations, start)


def gaussian(image: torch.Tensor, sigma: float | Sequence[float]) -> torch.Tensor:
    fits = _is_image(image) and not image.requires_grad
    return _run("gaussian", "gaussian", smoothing.gaussian, fits, (image,), smoothing.widths(image, sigma))


def image_force(image: torch.Tensor, slope: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    fits = _is_image(image) and image.shape == slope.shape and not (image.requires_grad or slope.requires_grad)
    return _run("descent", "image_force", descent.image_force, fits, (image, slope), scale)


def moment_step(
    force: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rates: tuple[float, float],
    corrections: tuple[float, float],
    floor: float,
    scale: Sequence[float],
) -> torch.Tensor:
    fits = (
        _is_field(force)
        and first.shape == force.shape
        and second.shape == (force.shape[0], 1, *force.shape[2:])
        and first.is_contiguous()
        and second.is_contiguous()
        and len(scale) == force.shape[1]
        and not force.requires_grad
    )
    return _run(
        "descent", "moment_step", descent.moment_step, fits, (force, first, second), rates, corrections, floor, scale
    )


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    fits = _is_field(displacement)
    return _run("jacobian", "jacobian_determinant", transport.jacobian_determinant, fits, (displacement,))


def joint_histogram(a: torch.Tensor, b: torch.Tensor, bins: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    fits = _is_image(a) and a.shape == b.shape and 5 <= bins <= 256 and _is_weight(mask, a)
    return _run("histogram", "joint_histogram", histogram.joint_histogram, fits, (a, b), bins, mask)


def local_correlation(
    a: torch.Tensor,
    b: torch.Tensor,
    window: int = 9,
    epsilon: float = 3e-3,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    fits = _is_image(a) and a.shape == b.shape and window >= 3 and window % 2 == 1 and _is_weight(mask, a)
    # A NaN never leaves a sliding sum.
    fits = fits and _finite(a, b)
    if mask is not None and fits:
        # Only shares of a window's weight matter: fused versions tell an empty window by its sum.
        mask = mask.to(a.dtype) / mask.amax(dim=tuple(range(1, mask.ndim)), keepdim=True).clamp_min(1e-30)
    return _run("correlation", "local_correlation", correlation.local_correlation, fits, (a, b), window, epsilon, mask)


def mind_descriptor(image: torch.Tensor, radius: int = 2, dilation: int = 2) -> torch.Tensor:
    fits = _is_image(image) and image.shape[1] == 1 and radius >= 0 and dilation >= 1 and _finite(image)
    return _run("mind", "mind_descriptor", mind.mind_descriptor, fits, (image,), radius, dilation)


for _function, _defined in (
    (sample, sampling.sample),
    (sample_labels, votes.sample_labels),
    (warp, sampling.warp),
    (compose, transport.compose),
    (exp, transport.exp),
    (solve, inversion.solve),
    (gaussian, smoothing.gaussian),
    (image_force, descent.image_force),
    (moment_step, descent.moment_step),
    (jacobian_determinant, transport.jacobian_determinant),
    (joint_histogram, histogram.joint_histogram),
    (local_correlation, correlation.local_correlation),
    (mind_descriptor, mind.mind_descriptor),
):
    # The reference defines an operation, and so describes it.
    _function.__doc__ = _defined.__doc__


def _run(module: str, name: str, reference: Any, fits: bool, tensors: tuple[torch.Tensor, ...], *more: Any) -> Any:
    fused = _version(module, name, *tensors)
    return (fused if fused and fits else reference)(*tensors, *more)


def _version(module: str, name: str, *tensors: torch.Tensor) -> Any:
    """The fused version that serves these tensors; None where the reference does."""
    chosen = backend(*tensors)
    if chosen == "reference" or not _written(chosen, module):
        return None
    return getattr(import_module(f"whence.kernels.{chosen}.{module}"), name)


def _ready(device: str) -> bool:
    if not _installed(device):
        return False
    return device != "cpu" or bool(import_module("whence.kernels.cpu.launch").usable())


@cache
def _written(device: str, module: str) -> bool:
    """Whether a device has an operation of its own."""
    return find_spec(f"whence.kernels.{device}.{module}") is not None


@cache
def _installed(device: str) -> bool:
    """Whether a device has fused versions here."""
    if find_spec(f"whence.kernels.{device}") is None:
        return False
    try:
        import_module(f"whence.kernels.{device}.launch")
    except ImportError as error:
        warnings.warn(f"slow kernels on this {device}: {error}", stacklevel=2)
        return False
    return True


def _is_image(image: torch.Tensor) -> bool:
    return image.ndim in (4, 5)


def _is_field(field: torch.Tensor) -> bool:
    return field.ndim in (4, 5) and field.shape[1] == field.ndim - 2


def _one_batch(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape[0] == b.shape[0] or 1 in (a.shape[0], b.shape[0])


def _is_weight(mask: torch.Tensor | None, image: torch.Tensor) -> bool:
    """Whether a mask weights the voxels of an image and takes no gradient."""
    if mask is None:
        return True
    fits = mask.ndim == image.ndim and mask.shape[0] in (1, image.shape[0]) and mask.shape[1] == 1
    return fits and mask.shape[2:] == image.shape[2:] and mask.device == image.device and not mask.requires_grad


def _finite(*images: torch.Tensor) -> bool:
    return bool(torch.isfinite(sum(image.detach().sum() for image in images)))
