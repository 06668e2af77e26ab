"""Predictor: a trained method and its frame; images in, traces out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from whence import kernels
from whence.data.frame import Frame, fit_shape, unfit_shape, up_to_multiple
from whence.errors import InputError
from whence.field import Displacement, invert, resample, warp
from whence.metrics.novelty import unexplained
from whence.models.cases import Asked, cases_beside
from whence.models.method import Method, Prediction
from whence.registration import default_similarity, register_diffeomorphic
from whence.retrieval import Bank
from whence.space import Grid, Volume
from whence.trace import Trace


@dataclass(frozen=True, eq=False)
class Predictor:
    """What ``whence.load`` returns: ``predict`` takes an image of any grid and returns its trace.

    ``columns``: what tables call their files, where by other names, as it was in training.
    """

    method: Method
    frame: Frame
    batch: int = 8
    bank: Bank | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def predict(
        self,
        source: Volume,
        generator: torch.Generator | None = None,
        *,
        target: Volume | None = None,
        labels: Volume | None = None,
        mask: Volume | None = None,
        asked: Asked | None = None,
        conditions: Mapping[str, Any] | None = None,
        name: str = "the image",
        **info: Any,
    ) -> Trace:
        """Trace of a source image (1, C, *spatial), on the source's own grid and intensity scale.

        A 2D method trained on slices takes a volume slice by slice. A method that has no field of its
        own gets one by registering source and prediction; the trace then says ``recovered``. Without a
        ``generator`` sampling methods draw from seed 0. A method that looks at a target as well (registration,
        a reference) needs ``target``, of the same world, one that sees labels those of the source, one that sees a
        tumour its ``mask``, one that is told conditions those that are known, by name; others leave them alone. Past
        cases are found as ``asked``; where a volume's slice shows no tumour it stays as it is.
        Raises InputError where dimensions or channels are not the model's; ``name`` is the image's in it.
        """
        count, channels = source.tensor.shape[:2]
        if count != 1 or channels != self.frame.source_channels:
            colour = "; it looks like a colour image, which a viewer can save as grey" if channels in (3, 4) else ""
            raise InputError(
                f"the model expects one image of {self.frame.source_channels} channel(s); "
                f"{name} has {count if count > 1 else channels} {'images' if count > 1 else 'channels'}{colour}"
            )
        lattice = self.frame.lattice(source.grid, name)
        inputs, intensity = self.frame.enter(source, lattice)
        batch = {"source": inputs}
        if "target" in self.method.inputs:
            batch["target"] = self._target(target, lattice, source)
        if "source_labels" in self.method.inputs:
            batch["source_labels"] = self._labels(labels, lattice, source, name)
        if self.method.attributes is not None:
            vector = self.method.attributes.vector(conditions or {})
            batch["conditions"] = vector.to(inputs.device).expand(len(inputs), -1)
        generator = generator or torch.Generator().manual_seed(0)
        if "source_mask" in self.method.inputs:
            mask = self._mask(mask, lattice, source, name)
            batch["source_mask"] = self.frame.enter_labels(mask, lattice)
        untouched: torch.Tensor | None = None
        tables: dict[str, Any] = {}
        if self.method.attributes is not None and conditions:
            heard = {name: conditions[name] for name in self.method.attributes.names if name in conditions}
            tables |= {"conditions": [heard]} if heard else {}
        if self.bank is None:
            result = self._infer(batch, generator)
        else:
            assert mask is not None
            asked, plan = asked or Asked(), None
            tables["tumour"] = _shown(mask, source)
            if asked.resection is not None:
                plan = self._mask(asked.resection, lattice, source, name, "resection")
                tables["planned resection"] = _shown(plan, source)
                batch["resection_mask"] = self.frame.enter_labels(plan, lattice)
            given = (self.method, self.frame, self.bank, source, mask, plan, lattice, asked)
            found = cases_beside(*given)
            beside = {**found.batch, "places": torch.tensor(found.places)[:, None]}
            result = self._infer({key: part[found.places] for key, part in batch.items()} | beside, generator)
            result = _among(result, found.places, inputs)
            tables["retrieved cases"] = found.facts()
            if len(found.places) < len(inputs):
                touched = torch.zeros_like(inputs[:, :1])
                touched[found.places] = 1
                seen = Volume(self.frame.stack(touched, lattice.dims), lattice)
                untouched = resample(seen, source.grid, "nearest").tensor < 0.5
        image = self._volume(intensity.restore(result.image), lattice, source.grid)
        if untouched is not None:
            image = image.with_tensor(torch.where(untouched, source.tensor.to(image.tensor), image.tensor))
        maps = {**result.extras, **{key: intensity.restore(value) for key, value in result.images.items()}}
        extras = {key: self._volume(value, lattice, source.grid) for key, value in maps.items()}
        common: dict[str, Any] = {"method": self.method.name, "extras": {**extras, **tables}, **info}
        if result.displacement is None:
            novelty = None if result.novelty is None else self._volume(result.novelty, lattice, source.grid)
            by = self.method.recovered_by
            where = None
            if result.comparable is not None:
                where = self._volume(result.comparable, lattice, source.grid)
                where = where.with_tensor((where.tensor >= 0.5).float())
            forward, backward = register_diffeomorphic(image, source, default_similarity(by), fixed_mask=where)
            found = {"kind": "recovered", "recovered_by": by, "novelty": novelty}
            return Trace.build(source, image, forward, backward, **found, **common)
        forward = self._field(result.displacement, lattice, source.grid)
        backward = invert(forward) if result.inverse is None else self._field(result.inverse, lattice, source.grid)
        moved = kernels.warp(inputs, result.displacement)
        # On the network's lattice both are equally fine; on a finer one the prediction's blur would look new.
        novelty = unexplained(result.image, moved) if result.novelty is None else result.novelty
        found = self._volume(novelty, lattice, source.grid)
        if result.carried:
            # But of what is not the scan's: a cavity has none of the texture of what was cut out.
            beyond = warp(source, forward).tensor - self._volume(intensity.restore(moved), lattice, source.grid).tensor
            carried = image.tensor + (1 - found.tensor.clamp(0, 1)) * beyond
            image = image.with_tensor(carried if untouched is None else torch.where(untouched, image.tensor, carried))
        return Trace.build(source, image, forward, backward, novelty=found, **common)

    def _target(self, target: Volume | None, lattice: Grid, source: Volume) -> torch.Tensor:
        """Batch of the target on the lattice of the source."""
        if target is None:
            raise InputError(f"{self.method.name} compares the image with a target; expected one")
        if target.dims != source.dims:
            raise InputError(f"the target is {target.dims}D; the image is {source.dims}D")
        if target.tensor.shape[1] != self.frame.target_channels:
            raise InputError(
                f"the model expects a target with {self.frame.target_channels} channel(s); got {target.tensor.shape[1]}"
            )
        return self.frame.enter(target, lattice)[0]

    def _labels(self, labels: Volume | None, lattice: Grid, source: Volume, name: str) -> torch.Tensor:
        """Batch of the source's labels on its lattice."""
        if labels is None:
            raise InputError(f"this {self.method.name} sees the labels of an image; expected those of {name}")
        if labels.dims != source.dims or labels.tensor.shape[1] != 1:
            found = f"{labels.dims}D with {labels.tensor.shape[1]} channel(s)"
            raise InputError(f"labels of {name} are {source.dims}D with 1 channel; got {found}")
        batch = self.frame.enter_labels(labels, lattice)
        if not bool(batch.any()):
            raise InputError(f"none of the labels lies within {name}; expected a segmentation of it")
        return batch

    def _mask(self, mask: Volume | None, lattice: Grid, source: Volume, name: str, what: str = "mask") -> Volume:
        """The tumour's mask, or that of the resection, 0 or 1."""
        if mask is None:
            raise InputError(
                f"{self.method.name} sees the tumour of an image; expected its mask beside {name} (--mask, or "
                "source_mask in a table)"
            )
        if mask.dims != source.dims or mask.tensor.shape[1] != 1:
            found = f"{mask.dims}D with {mask.tensor.shape[1]} channel(s)"
            raise InputError(
                f"{name} is {source.dims}D; expected a {what} of {source.dims}D with 1 channel, got {found}"
            )
        inside = mask.with_tensor((mask.tensor != 0).to(torch.uint8))
        if not bool(inside.tensor.any()):
            where = "is to be cut" if what == "resection" else "the tumour is"
            raise InputError(f"the {what} beside {name} is empty; expected one that is not 0 where {where}")
        if not bool(resample(inside, lattice, mode="label", outside="zeros").tensor.any()):
            raise InputError(
                f"nothing of the {what} lies within {name}: it is on {mask.grid}, the image on {source.grid}; "
                "expected one of this image"
            )
        return inside

    def _infer(self, inputs: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        shape = tuple(inputs["source"].shape[2:])
        least = self.frame.shape if self.method.framed else shape
        multiple = self.method.multiple if self.method.padded else 1
        enough = up_to_multiple(tuple(map(max, shape, least)), multiple)
        device = next(self.method.parameters()).device
        beyond = {name: 0.0 if name.endswith(("_labels", "_mask", "_cavity")) else -1.0 for name in inputs}
        size = len(inputs["source"]) if self.method.together else self.batch

        def fitted(name: str, batch: torch.Tensor) -> torch.Tensor:
            # Conditions and numbers of slices have no place in space.
            return batch if batch.ndim == 2 else fit_shape(batch, enough, beyond[name])

        padded = {name: fitted(name, batch).to(device).split(size) for name, batch in inputs.items()}
        self.method.eval()
        try:
            with torch.no_grad():
                chunks = (dict(zip(padded, chunk, strict=True)) for chunk in zip(*padded.values(), strict=True))
                parts = [self.method.infer(chunk, generator) for chunk in chunks]
        except (MemoryError, RuntimeError) as error:
            # torch has an exception of its own for a GPU's memory and none for the machine's.
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            seen, own = ("x".join(map(str, sides)) for sides in (enough, self.frame.shape))
            at = "x".join(f"{s:g}" for s in self.frame.spacing)
            raise InputError(
                f"at the model's {at} mm the image has {seen} voxels, which need more memory than there is; "
                f"expected one of about {own}, as it was trained on"
            ) from error

        def whole(values: list[torch.Tensor | None]) -> torch.Tensor | None:
            kept = [value.detach().float().cpu() for value in values if value is not None]
            return unfit_shape(torch.cat(kept), shape).clone() if kept else None

        image = whole([part.image for part in parts])
        if image is None:
            raise ValueError(f"method {self.method.name!r} returned no image")

        def all_of(named: list[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
            found = {key: whole([part[key] for part in named]) for key in named[0]}
            return {key: value for key, value in found.items() if value is not None}

        return Prediction(
            image,
            whole([part.displacement for part in parts]),
            whole([part.inverse for part in parts]),
            whole([part.novelty for part in parts]),
            all_of([part.extras for part in parts]),
            whole([part.comparable for part in parts]),
            all_of([part.images for part in parts]),
            parts[0].carried,
        )

    def _volume(self, batch: torch.Tensor, lattice: Grid, grid: Grid) -> Volume:
        return resample(Volume(self.frame.stack(batch, lattice.dims), lattice), grid)

    def _field(self, batch: torch.Tensor, lattice: Grid, grid: Grid) -> Displacement:
        return Displacement(self.frame.stack(batch, lattice.dims, vectors=True), lattice).resampled(grid)


def _shown(mask: Volume, source: Volume) -> Volume:
    """A mask as an image on the source's grid."""
    return source.with_tensor(resample(mask, source.grid, mode="label", outside="zeros").tensor.float())


def _among(result: Prediction, places: list[int], inputs: torch.Tensor) -> Prediction:
    """A prediction of some slices among all, the others as they are; what it shows besides is empty there."""

    def spread(part: torch.Tensor, rest: torch.Tensor | float) -> torch.Tensor:
        whole = torch.as_tensor(rest).expand(len(inputs), *part.shape[1:]).clone()
        whole[places] = part
        return whole

    extras, images = (
        {name: spread(part, -1.0) for name, part in named.items()} for named in (result.extras, result.images)
    )
    # Where nothing was predicted nothing moves.
    where = None if result.comparable is None else spread(result.comparable, 1.0)
    still = (result.displacement, result.inverse, result.novelty)
    forward, backward, novelty = (None if part is None else spread(part, 0.0) for part in still)
    return result._replace(
        image=spread(result.image, inputs),
        displacement=forward,
        inverse=backward,
        novelty=novelty,
        extras=extras,
        comparable=where,
        images=images,
    )
