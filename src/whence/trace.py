"""Trace: what every method returns, a prediction and where each point of it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from whence import __version__
from whence.errors import InputError
from whence.field import Displacement, folding, warp
from whence.io import (
    load_json,
    read,
    read_displacement,
    read_labels,
    save_json,
    staged_folder,
    write,
    write_displacement,
    write_labels,
)
from whence.metrics.novelty import unexplained
from whence.space import Volume

KINDS = ("predicted", "recovered", "registered", "compared")


@dataclass(frozen=True, eq=False)
class Trace:
    """A prediction that names, for every point, whence in the source it came.

    ``displacement`` lives on the prediction's grid and pulls back into the source; ``inverse`` lives on
    the source's grid and pulls back into the prediction. ``novelty`` is 0..1 per voxel: how little of
    the prediction the warped source explains. ``extras`` holds whatever a method adds (Volumes, or
    tables as lists of rows); ``info`` says which method, and whether the field was ``predicted`` by it,
    ``recovered`` by registering source and prediction, or what was asked for, two images ``registered``, or zero
    because they were ``compared`` as they lie.
    """

    source: Volume
    image: Volume
    displacement: Displacement
    inverse: Displacement
    warped_source: Volume
    novelty: Volume
    target: Volume | None = None
    labels: Volume | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        source: Volume,
        image: Volume,
        displacement: Displacement,
        inverse: Displacement,
        *,
        method: str,
        kind: str = "predicted",
        novelty: Volume | None = None,
        extras: Mapping[str, Any] | None = None,
        **info: Any,
    ) -> Trace:
        """Trace of a prediction and its two fields; the warped source and the novelty follow from them.

        Raises ValueError if a field is not on the grid it belongs to or the kind is unknown.
        """
        if kind not in KINDS:
            raise ValueError(f"a trace is {', '.join(KINDS[:-1])} or {KINDS[-1]}; got {kind!r}")
        if displacement.grid != image.grid or inverse.grid != source.grid:
            raise ValueError(
                f"the displacement belongs on the prediction's grid {image.grid} and the inverse on the source's "
                f"{source.grid}; got {displacement.grid} and {inverse.grid}"
            )
        warped = warp(source, displacement)
        if novelty is None:
            novelty = image.with_tensor(unexplained(image.tensor, warped.tensor))
        return cls(
            source,
            image,
            displacement,
            inverse,
            warped,
            novelty,
            extras=dict(extras or {}),
            info={"method": method, "kind": kind, **info},
        )

    def whence(self, points: np.ndarray) -> np.ndarray:
        """Source points (N, D) that points of the prediction came from, RAS mm."""
        return self.displacement(_points(points, self.image.dims))

    def whither(self, points: np.ndarray) -> np.ndarray:
        """Points (N, D) of the prediction that points of the source went to, RAS mm.

        ``inverse`` is linear between its voxels and so misses by a little; from there the point is sought that
        ``whence`` sends back, to 1e-4 voxel. What came to no point of the prediction keeps the nearest found.
        """
        points = _points(points, self.source.dims)
        return self.displacement.preimage(points, self.inverse(points)) if len(points) else points

    def carry(self, labels: Volume) -> Volume:
        """Integer labels of the source, carried to the prediction's grid."""
        return warp(labels, self.displacement, mode="label")

    def novelty_at(self, points: np.ndarray) -> np.ndarray:
        """Novelty (N,) at points (N, D) of the prediction, RAS mm."""
        import torch

        from whence import kernels

        voxels = torch.from_numpy(self.image.grid.to_voxel(_points(points, self.image.dims)).T[None]).float()
        return kernels.sample(self.novelty.tensor, voxels)[0, 0].numpy().astype(np.float64)

    def with_truth(self, target: Volume | None = None, labels: Volume | None = None) -> Trace:
        """The same trace beside the true image, and with the source's labels carried."""
        return replace(self, target=target, labels=None if labels is None else self.carry(labels))

    def save(self, folder: str | Path) -> Path:
        """Write the trace folder: images and ITK-readable fields as .nii.gz, and trace.json.

        The files appear together; a failure leaves what was there. What an earlier trace had in the folder and this one
        has not is removed, what is no trace's stays.
        Raises InputError where a file of ours would replace one that is no trace's.
        """
        folder, before = Path(folder), _files_of(Path(folder))
        with staged_folder(folder) as stage:
            for name, volume in self._images().items():
                write(volume, stage / f"{name}.nii.gz")
            write_displacement(self.displacement, stage / "displacement.nii.gz")
            write_displacement(self.inverse, stage / "inverse.nii.gz")
            if self.labels is not None:
                write_labels(self.labels, stage / "labels.nii.gz")
            images: dict[str, str] = {}
            tables: dict[str, Any] = {}
            for name, extra in self.extras.items():
                if isinstance(extra, Volume):
                    # Names for people hold spaces and brackets; names of files had better not.
                    plain = re.sub(r"\W+", "_", name).strip("_")
                    taken = f"extra_{plain}.nii.gz" in images.values()
                    images[name] = f"extra_{plain}{f'_{len(images)}' if taken else ''}.nii.gz"
                    write(extra, stage / images[name])
                else:
                    tables[name] = extra
            save_json(
                {
                    **self.info,
                    "whence": __version__,
                    "contract": "prediction(p) ~ source(p + u(p)); displacement.nii.gz holds u in mm, LPS (ITK)",
                    "statistics": self.statistics(),
                    "files": sorted(path.name for path in stage.iterdir()),
                    "extra_images": images,
                    "extra_tables": tables,
                },
                stage / "trace.json",
            )
            now = {path.name for path in stage.iterdir()}
            foreign = [name for name in sorted(now - before) if (folder / name).exists()]
            if foreign:
                raise InputError(f"{folder / foreign[0]} is no file of a trace; expected a folder without it")
        for name in before - now:
            (folder / name).unlink(missing_ok=True)
        return folder

    def statistics(self) -> dict[str, float]:
        """Displacement in mm, folding, and mean novelty of the whole image."""
        moved = self.displacement.magnitude()
        return {
            "displacement_mean_mm": float(moved.mean()),
            "displacement_max_mm": float(moved.max()),
            "folded_share": folding(self.displacement),
            "novelty_mean": float(self.novelty.tensor.mean()),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Trace:
        """Read a trace folder. Raises InputError where it is none or a file of it is missing."""
        folder = Path(folder)
        if not (folder / "trace.json").is_file():
            raise InputError(f"expected a trace folder with a trace.json; got {folder}")
        info = load_json(folder / "trace.json")
        if not isinstance(info, dict):
            raise InputError(f"{folder / 'trace.json'} describes no trace; got {type(info).__name__}")
        # A folder written twice may still hold a target that belonged to the first trace.
        files = info.pop("files", None)

        def optional(name: str, reader: Any) -> Volume | None:
            path = folder / f"{name}.nii.gz"
            return reader(path) if (path.exists() if files is None else path.name in files) else None

        extras: dict[str, Any] = {n: read(folder / Path(f).name) for n, f in info.pop("extra_images", {}).items()}
        extras.update(info.pop("extra_tables", {}))
        return cls(
            source=read(folder / "source.nii.gz"),
            image=read(folder / "prediction.nii.gz"),
            displacement=read_displacement(folder / "displacement.nii.gz"),
            inverse=read_displacement(folder / "inverse.nii.gz"),
            warped_source=read(folder / "warped_source.nii.gz"),
            novelty=read(folder / "novelty.nii.gz"),
            target=optional("target", read),
            labels=optional("labels", read_labels),
            extras=extras,
            info=info,
        )

    def _images(self) -> dict[str, Volume]:
        images = {
            "source": self.source,
            "prediction": self.image,
            "warped_source": self.warped_source,
            "novelty": self.novelty,
        }
        return images if self.target is None else {**images, "target": self.target}


def _files_of(folder: Path) -> set[str]:
    """Names of the files that a trace has in a folder; none where there is no trace, or one of another hand."""
    if not (folder / "trace.json").is_file():
        return set()
    info = load_json(folder / "trace.json")
    files = info.get("files", []) if isinstance(info, dict) else []
    return {"trace.json", *(Path(str(name)).name for name in files)}


def _points(points: np.ndarray, dims: int) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != dims:
        raise InputError(f"expected points (N, {dims}) in RAS mm; got an array of shape {array.shape}")
    return array
