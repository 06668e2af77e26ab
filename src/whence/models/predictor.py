"""Predictor: a trained method and its frame; images in, traces out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from whence.data.frame import Frame, fit_shape, unfit_shape, up_to_multiple
from whence.errors import InputError
from whence.field import Displacement, resample
from whence.models.method import Method, Prediction
from whence.registration import register_diffeomorphic
from whence.space import Grid, Volume
from whence.trace import Trace


@dataclass(frozen=True, eq=False)
class Predictor:
    """What ``whence.load`` returns: ``predict`` takes an image of any grid and returns its trace."""

    method: Method
    frame: Frame
    batch: int = 8

    def predict(
        self, source: Volume, generator: torch.Generator | None = None, *, name: str = "the image", **info: Any
    ) -> Trace:
        """Trace of a source image (1, C, *spatial), on the source's own grid and intensity scale.

        A 2D method trained on slices takes a volume slice by slice. A method that has no field of its
        own gets one by registering source and prediction; the trace then says ``recovered``.
        Raises InputError where dimensions or channels are not the model's; ``name`` is the image's in it.
        """
        count, channels = source.tensor.shape[:2]
        if count != 1 or channels != self.frame.source_channels:
            raise InputError(
                f"the model expects one image with {self.frame.source_channels} channel(s); "
                f"{name} holds {count} with {channels}"
            )
        lattice = self.frame.lattice(source.grid, name)
        inputs, intensity = self.frame.enter(source, lattice)
        result = self._infer(inputs, generator)
        image = Volume(self.frame.stack(intensity.restore(result.image)), lattice)
        image = resample(image, source.grid)
        common = {"method": self.method.name, **info}
        if result.displacement is None or result.inverse is None:
            forward, backward = register_diffeomorphic(image, source)
            return Trace.build(source, image, forward, backward, kind="recovered", **common)
        forward = self._field(result.displacement, lattice, source.grid)
        backward = self._field(result.inverse, lattice, source.grid)
        return Trace.build(source, image, forward, backward, **common)

    def _infer(self, inputs: torch.Tensor, generator: torch.Generator | None) -> Prediction:
        shape = tuple(inputs.shape[2:])
        padded = fit_shape(inputs, up_to_multiple(shape, self.method.multiple))
        device = next(self.method.parameters()).device
        parts = []
        self.method.eval()
        with torch.no_grad():
            for chunk in padded.split(self.batch):
                part = self.method.infer(chunk.to(device), generator)
                parts.append(Prediction(*(None if value is None else value.float().cpu() for value in part)))
        joined = []
        for values in zip(*parts, strict=True):
            kept = [value for value in values if value is not None]
            joined.append(unfit_shape(torch.cat(kept), shape).clone() if kept else None)
        image, displacement, inverse = joined
        if image is None:
            raise ValueError(f"method {self.method.name!r} returned no image")
        return Prediction(image, displacement, inverse)

    def _field(self, tensor: torch.Tensor, lattice: Grid, grid: Grid) -> Displacement:
        return Displacement(self.frame.stack(tensor, vectors=True), lattice).resampled(grid)
