"""Two image files registered into a trace folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from whence.data.dataset import read_image
from whence.errors import InputError
from whence.field import folding
from whence.io import read_affine, read_labels, replacing, save_json, write_affine
from whence.losses import Similarity
from whence.registration import PRESETS, Registration, Settings, register
from whence.registration.settings import TRANSFORMS
from whence.space import Volume
from whence.trace import Trace
from whence.train.callbacks import progress_bar
from whence.train.run import check_folder, model_path
from whence.train.similarity import find_similarity

Progress = Callable[[str, int, int, float], None]
# Written last: a folder that holds it is finished.
RECORD = "registration.json"
# The similarity that the images themselves choose.
AUTO = "auto"
# Of an affine to start from: it brings no axis below a thousandth of another.
LARGEST_CONDITION = 1e3


@dataclass(frozen=True)
class RegisterConfig:
    """Options of a registration.

    Args:
        similarity: what the images are compared by: ncc, nmi, mi, mind, mse, or the folder of an evaluator's run; auto
            is ncc where both show things in one contrast, mi elsewhere.
        preset: fast or accurate.
        transform: greedy or svf.
        affine: begin with an affine registration.
        diffeomorphic: go on with a diffeomorphic one.
        affine_similarity: what the affine registration compares by.
        window: voxels along the window of ncc.
        bins: bins of nmi and mi.
        step: length of a step in voxels; the preset's if not given.
        levels: factors of coarseness, coarse to fine; the preset's if empty.
        iterations: steps of each level; the preset's if empty.
        smooth_step: width in voxels of the Gaussian on forces; the preset's if not given.
        smooth_total: width in voxels of the Gaussian on the field; if not given, what suits dimension and similarity.
    """

    similarity: str = AUTO
    preset: str = "fast"
    transform: str = "greedy"
    affine: bool = True
    diffeomorphic: bool = True
    affine_similarity: str = "nmi"
    window: int | None = None
    bins: int | None = None
    step: float | None = None
    levels: tuple[float, ...] = ()
    iterations: tuple[int, ...] = ()
    smooth_step: float | None = None
    smooth_total: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "iterations", tuple(self.iterations))

    def settings(self) -> Settings:
        """Settings of both stages. Raises InputError for values that make no sense."""
        for name, value, known in (("preset", self.preset, PRESETS), ("transform", self.transform, TRANSFORMS)):
            if value not in known:
                raise InputError(f"unknown {name} {value!r}; expected one of {', '.join(known)}")
        chosen = PRESETS[self.preset]
        names = ("transform", "step", "levels", "iterations", "smooth_step", "smooth_total")
        changes: dict[str, Any] = {n: getattr(self, n) for n in names if getattr(self, n) not in (None, ())}
        try:
            diffeomorphic = None if chosen.diffeomorphic is None else replace(chosen.diffeomorphic, **changes)
        except ValueError as error:
            raise InputError(str(error)) from error
        return Settings(chosen.affine if self.affine else None, diffeomorphic if self.diffeomorphic else None)


@dataclass(frozen=True)
class Images:
    """The files of a registration."""

    fixed: Path
    moving: Path
    mask: Path | None = None
    moving_mask: Path | None = None
    start: Path | None = None


def register_files(
    images: Images, out: str | Path, config: RegisterConfig, name: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """Register two files and write the trace folder ``out``; returns its figures.

    Beside what every trace folder holds: ``affine.tfm``, ``energy.csv`` and ``registration.json``.
    """
    out = Path(out)
    check_folder(out)
    settings = config.settings()
    check_similarities(config)
    fixed = read_image(images.fixed)

    def make(chosen: str) -> Similarity:
        return find_similarity(chosen, fixed.grid, window=config.window, bins=config.bins)

    similarity = None if config.similarity == AUTO else make(config.similarity)
    affine_similarity = make(config.affine_similarity)
    moving = read_image(images.moving)
    if fixed.dims != moving.dims:
        raise InputError(f"{images.moving} is {moving.dims}D; expected {fixed.dims}D, as {images.fixed} is")
    masks = {
        "fixed_mask": _mask(images.mask, fixed, images.fixed),
        "moving_mask": _mask(images.moving_mask, moving, images.moving),
    }
    start = None if images.start is None else _start(images.start, fixed.dims)
    began = time.monotonic()
    found = register(
        fixed,
        moving,
        similarity,
        settings,
        **masks,
        affine_similarity=affine_similarity,
        start=start,
        make=make,
        progress=progress,
    )
    seconds = round(time.monotonic() - began, 2)
    figures = {"seconds": seconds, "energy": found.energies[-1][2] if found.energies else None}
    figures["folded"] = folding(found.displacement)
    taken = config.affine_similarity if settings.diffeomorphic is None else found.similarity or config.similarity
    figures["similarity"] = taken
    shown = {"similarity": taken}
    shown |= {"preset": config.preset, "transform": config.transform}
    trace = Trace.build(
        moving,
        fixed,
        found.displacement,
        found.inverse,
        method="register",
        kind="registered",
        id=name or out.resolve().name,
        **shown,
    )
    (out / RECORD).unlink(missing_ok=True)
    trace.save(out)
    write_affine(found.affine, out / "affine.tfm")
    _write_energies(found, out / "energy.csv")
    save_json({"made_of": made_of(images, config), "config": asdict(config), **figures}, out / RECORD)
    return figures


def check_similarities(config: RegisterConfig) -> None:
    """Raise InputError for a similarity that no images can be compared by, those of ``auto`` among them."""
    names = ("ncc", "mi") if config.similarity == AUTO else (config.similarity,)
    for name in (*names, config.affine_similarity):
        # A run is looked at when it is loaded.
        if not Path(name).is_dir():
            find_similarity(name, window=config.window, bins=config.bins)


def register_with_bar(images: Images, out: str | Path, config: RegisterConfig) -> Path:
    """Register two files under a progress bar that shows the energy; returns the trace folder."""
    with progress_bar() as bar:
        task = bar.add_task("reading", total=None, note="")

        def show(stage: str, iteration: int, iterations: int, energy: float) -> None:
            bar.update(task, description=stage, total=iterations, completed=iteration + 1, note=f"energy {energy:.4f}")

        figures = register_files(images, out, config, progress=show)
    if config.similarity == AUTO:
        print(f"compared by {figures['similarity']}")
    return Path(out)


def made_of(images: Images, config: RegisterConfig) -> str:
    """What a finished folder is known by: the options, and the files with their sizes and times.

    A similarity that is a run counts by its weights as well.
    """
    parts = [repr(sorted(asdict(config).items()))]
    runs = [model_path(Path(name)) for name in (config.similarity, config.affine_similarity)]
    runs = [path for path in runs if path.is_file()]
    for path in (images.fixed, images.moving, images.mask, images.moving_mask, images.start, *runs):
        if path is None:
            parts.append("")
            continue
        facts = Path(path).stat()
        parts.append(f"{Path(path).resolve()}:{facts.st_size}:{facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _mask(path: Path | None, image: Volume, of: Path) -> Volume | None:
    if path is None:
        return None
    mask = read_labels(path)
    if mask.dims != image.dims or not mask.grid.same_as(image.grid):
        raise InputError(f"the mask {path} lies on {mask.grid}; expected the grid of {of}, {image.grid}")
    inside = (mask.tensor != 0).any(dim=1, keepdim=True)
    if not bool(inside.any()):
        raise InputError(f"the mask {path} is empty; expected voxels above 0 where the images are compared")
    return Volume(inside.float(), image.grid)


def _start(path: Path, dims: int) -> np.ndarray:
    matrix = read_affine(path)
    if matrix is None or len(matrix) != dims + 1:
        got = "another transform" if matrix is None else f"a {len(matrix) - 1}D one"
        raise InputError(f"{path}: expected a {dims}D affine transform of ITK to start from; got {got}")
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:dims, :dims]) > LARGEST_CONDITION:
        raise InputError(f"{path}: expected an affine that can be undone; got the singular {matrix.tolist()}")
    return matrix


def _write_energies(found: Registration, path: Path) -> None:
    lines = ["stage,iteration,energy", *(f"{stage},{i},{energy:.6g}" for stage, i, energy in found.energies)]
    with replacing(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8")
