"""What a trained method that compares modalities is good for: error maps, a similarity, translation, novelty.

Any method that offers ``spatial_error`` (and ``translate``) serves; the functions know none by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from whence import kernels
from whence.data.frame import Frame, Intensity
from whence.errors import InputError
from whence.field import Displacement, resample
from whence.metrics import body_mask
from whence.models.predictor import Predictor
from whence.space import Grid, Volume
from whence.trace import Trace


@dataclass(frozen=True, eq=False)
class SpatialError:
    """Where two images disagree about the place of things.

    ``map`` (1, 1, *spatial) on the fixed image's grid is |E|, the estimated difference as a share of the
    intensity range, 0 where the images are aligned; ``mean`` its mean over ``body``, the fixed image's.
    """

    map: Volume
    body: torch.Tensor
    mean: float


def spatial_error(
    evaluator: Predictor,
    moving: Volume,
    fixed: Volume,
    names: tuple[str, str] = ("the moving image", "the fixed image"),
) -> SpatialError:
    """Spatial error of a moving image against a fixed one, both (1, C, *spatial) on any grids of one world.

    Raises InputError where the run estimates none or the images do not suit it; ``names`` are the images' in it.
    """
    require_evaluator(evaluator)
    for volume, name in zip((moving, fixed), names, strict=True):
        _check_image(evaluator.frame, volume, name)
    lattice = evaluator.frame.lattice(fixed.grid, names[1])
    first, second = (evaluator.frame.enter(volume, lattice)[0] for volume in (moving, fixed))
    found = _run(evaluator, "spatial_error", first, second).abs().mean(dim=1, keepdim=True)
    error = resample(Volume(evaluator.frame.stack(found, lattice.dims), lattice), fixed.grid)
    body = body_mask(fixed.tensor)
    inside = error.tensor[body] if bool(body.any()) else error.tensor
    return SpatialError(error, body, float(inside.mean()))


def translate(
    translator: Predictor,
    source: Volume,
    reference: Volume | None = None,
    names: tuple[str, str] = ("the source", "the reference"),
) -> Volume:
    """The reference's appearance on the source's geometry: an image on the source's grid, on the reference's scale.

    A translator between two fixed modalities needs no reference and keeps the source's scale without one.
    Raises InputError where the run does not translate or the images do not suit it.
    """
    _check(translator, "translate", "translates no image")
    if reference is None and "target" in translator.method.inputs and "target" not in translator.method.columns:
        raise InputError(f"{translator.method.name} takes the appearance of a reference image; expected one")
    _check_image(translator.frame, source, names[0])
    lattice = translator.frame.lattice(source.grid, names[0])
    inputs, intensity = translator.frame.enter(source, lattice)
    shown = inputs
    if reference is not None:
        _check_image(translator.frame, reference, names[1])
        shown, intensity = translator.frame.enter(reference, lattice)
    result = intensity.restore(_run(translator, "translate", inputs, shown))
    return resample(Volume(translator.frame.stack(result, lattice.dims), lattice), source.grid)


@dataclass(frozen=True, eq=False)
class EvaluatorSimilarity:
    """Mean |E(a, b)|, a dissimilarity of images (B, C, *spatial) in [-1, 1] with gradients in both.

    A mask (B or 1, 1, *spatial) weights the voxels of the map. A 2D run sees a volume as slices of its plane; the
    volume's axes are those of ``grid``, R, A, S without one. ``spacing`` (mm) is that of the run's training, at
    which it compares best. Raises InputError for images that the run cannot see.
    """

    evaluator: Predictor
    grid: Grid | None = None
    across_modalities: ClassVar[bool] = True

    @property
    def spacing(self) -> float:
        return min(self.evaluator.frame.spacing)

    def __call__(self, a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        method = self.evaluator.method.to(a.device)
        error = method.spatial_error(self._flat(a), self._flat(b)).abs()
        if mask is None:
            return error.mean()
        weight = self._flat(mask.to(error).expand(len(a), 1, *a.shape[2:]), channels=1)
        return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1e-6)

    def _flat(self, images: torch.Tensor, channels: int = 0) -> torch.Tensor:
        """Volumes as a batch of the slices that a 2D run sees; images of its own dimensions as they are."""
        frame = self.evaluator.frame
        if images.ndim - 2 < frame.dims or images.shape[1] != (channels or frame.source_channels):
            raise InputError(
                f"the run to compare by expects {frame.dims}D images of {frame.source_channels} channel(s); got "
                f"{images.ndim - 2}D ones of {images.shape[1]}"
            )
        axis = frame.across(images.ndim - 2)
        if axis is None:
            return images
        images = images if self.grid is None else self.grid.to_canonical(images)
        return images.movedim(2 + axis, 1).flatten(0, 1)


def evaluator_similarity(evaluator: Predictor, grid: Grid | None = None) -> EvaluatorSimilarity:
    """A run as a similarity, its weights frozen; ``grid`` has the axes of the volumes that a 2D run will see.

    Raises InputError where the run estimates no spatial error.
    """
    require_evaluator(evaluator)
    evaluator.method.eval().requires_grad_(False)
    return EvaluatorSimilarity(evaluator, grid)


def with_novelty(trace: Trace, evaluator: Predictor, smoothing: float = 1.0, scale: float = 0.1) -> Trace:
    """The trace whose novelty is what the evaluator sees between prediction and warped source.

    r^2 / (r^2 + s^2) of the smoothed map r with s = ``scale``: 0.5 where a tenth of the range is unexplained, as the
    usual measure counts.
    """
    found = spatial_error(evaluator, trace.warped_source, trace.image, ("the warped source", "the prediction"))
    info = {**trace.info, "novelty": f"by {evaluator.method.name}"}
    return replace(trace, novelty=_novelty(found.map, smoothing, scale), info=info)


def error_trace(found: SpatialError, moving: Volume, fixed: Volume, evaluator: Predictor, **info: Any) -> Trace:
    """The pair and its error map as a trace that moves nothing: its prediction is the moving image as it lies."""
    here = resample(moving, fixed.grid)
    still, back = Displacement.identity(fixed.grid), Displacement.identity(moving.grid)
    statistics = {"spatial_error_mean": round(found.mean, 4), **info}
    trace = Trace.build(moving, here, still, back, method=evaluator.method.name, kind="compared", **statistics)
    shown = Intensity.of(here).restore(Intensity.of(fixed).normalise(fixed.tensor))
    trace = replace(trace, extras={"spatial error": found.map}).with_truth(fixed.with_tensor(shown))
    return replace(trace, novelty=_novelty(found.map))


def _novelty(error: Volume, smoothing: float = 1.0, scale: float = 0.1) -> Volume:
    residual = kernels.gaussian(error.tensor, smoothing)
    return error.with_tensor(residual**2 / (residual**2 + scale**2))


def _run(predictor: Predictor, ability: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    method = predictor.method.eval()
    device = next(method.parameters()).device
    with torch.no_grad():
        chunks = zip(first.split(predictor.batch), second.split(predictor.batch), strict=True)
        parts = [getattr(method, ability)(a.to(device), b.to(device)).float().cpu() for a, b in chunks]
    return torch.cat(parts)


def require_evaluator(predictor: Predictor) -> None:
    """Raise InputError where a run estimates no spatial error."""
    _check(predictor, "spatial_error", "estimates no spatial error")


def _check(predictor: Predictor, ability: str, lacks: str) -> None:
    if not hasattr(predictor.method, ability):
        raise InputError(f"the run's method {predictor.method.name!r} {lacks}; expected a run of one that does")


def _check_image(frame: Frame, volume: Volume, name: str) -> None:
    count, channels = volume.tensor.shape[:2]
    if count != 1 or channels != frame.source_channels:
        raise InputError(
            f"the run expects one image with {frame.source_channels} channel(s); {name} holds {count} with {channels}"
        )
    if volume.dims < frame.dims:
        raise InputError(f"the run expects {frame.dims}D images; {name} is {volume.dims}D")
