"""A glioma before surgery and what surgery leaves of it, on the anatomy as if it had never grown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from whence.data.phantom.anatomy import GM, WM
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.shapes import inside, irregular_region, smooth_maximum
from whence.data.phantom.subject import Subject


@dataclass(frozen=True, eq=False)
class Lesion:
    """Level sets (*shape, mm, negative inside) and soft maps (0..1) on the anatomy.

    ``tumour`` and ``cavity`` (a part of the tumour) are level sets, ``oedema`` a soft map;
    ``radius`` is that of the ball (disc) of the seed's volume and ``depth`` the distance from its middle
    to the surface of the brain, mm; ``extent`` is the resected share.
    """

    tumour: np.ndarray
    cavity: np.ndarray
    oedema: np.ndarray
    centre: np.ndarray
    radius: float
    depth: float
    extent: float


def draw_lesion(rng: np.random.Generator, subject: Subject, residual: float = 1.0) -> Lesion:
    """A seed of irregular shape in brain tissue of one hemisphere, its oedema and its resection.

    ``residual`` scales what nobody could foresee: the unevenness of the cut.
    """
    positions, spacing = subject.positions, subject.spacing
    wanted = rng.uniform(9.0, 16.0)
    lobes = 2 if rng.random() < 0.45 else 1
    # A slice through a tumour shows less of it than the volume; two lobes add up.
    wanted *= (0.85 if lobes == 2 else 1.0) * (1.1 if subject.grid.dims == 3 else 1.0)
    wanted = max(wanted, 2.2 * spacing)  # on a coarse grid a smaller one would leave no voxel of cavity
    start = _place(rng, subject, positions, wanted)
    level = irregular_region(rng, positions, start, wanted, spacing, rng.uniform(0.35, 0.6), lobes)
    across = subject.template_points[0].numpy()
    side = np.sign(float(across[tuple(_nearest(positions, start, spacing))])) or 1.0
    ventricles = ndimage.gaussian_filter(subject.csf, 1.6 / spacing)
    level = smooth_maximum(level, 2.5 - subject.depth, 1.0)
    level = smooth_maximum(level, 2.5 - side * across, 1.0)
    level = smooth_maximum(level, 16 * (ventricles - 0.5), 1.0)
    tumour = _largest(level)

    dims = subject.grid.dims
    region = tumour < 0
    centre = positions[:, region].mean(axis=1)
    volume = float(region.sum()) * spacing**dims
    radius = float((volume / np.pi) ** 0.5 if dims == 2 else (volume * 0.75 / np.pi) ** (1 / 3))
    depth = float(subject.depth[region].mean())
    cavity = _resect(rng, subject, positions, tumour, centre, depth, residual)
    extent = float((cavity < 0).sum() / region.sum())

    reach = rng.uniform(8, 20) * (1 + 0.35 * smooth_noise(rng, tumour.shape, 8.0 / spacing)[0])
    white = ndimage.gaussian_filter(subject.maps[WM], 1.2 / spacing)
    oedema = np.clip(white * 1.15 + 0.12 * (subject.maps[GM] > 0.5), 0, 1) * inside(tumour - reach, 2.2)
    return Lesion(tumour, cavity, oedema.astype(np.float32), centre, radius, depth, extent)


def _place(rng: np.random.Generator, subject: Subject, positions: np.ndarray, radius: float) -> np.ndarray:
    """A random voxel of supratentorial tissue far enough from surface and midline, as world point (D,)."""
    tissue = subject.maps[GM] + subject.maps[WM] > 0.6
    template = subject.template_points.numpy()
    allowed = tissue & (np.abs(template[0]) > 0.8 * radius + 4) & (subject.depth > 0.75 * radius + 2)
    if subject.grid.dims == 3:
        # Above the tentorium, and where a slice still holds much brain.
        allowed &= (template[2] > np.where(template[1] < -35, 6, -14)) & (template[2] < 52)
    choices = np.flatnonzero(allowed)
    chosen = choices[rng.integers(len(choices))]
    return positions.reshape(positions.shape[0], -1)[:, chosen].astype(np.float64)


def _resect(
    rng: np.random.Generator,
    subject: Subject,
    positions: np.ndarray,
    tumour: np.ndarray,
    centre: np.ndarray,
    depth: float,
    residual: float,
) -> np.ndarray:
    """Level set of the resected part: the deeper the tumour, and the nearer to the motor strip and the
    internal capsule, the more of its deep side is left."""
    dims = positions.shape[0]
    inward = subject.grid.centre - centre
    inward /= max(float(np.linalg.norm(inward)), 1e-6)
    along = np.tensordot(inward, positions - centre.reshape(-1, *[1] * dims), axes=1)
    furthest = float(along[tumour < 0].max())
    middle = subject.template_points[:, *_nearest(positions, centre, subject.spacing)].numpy()
    eloquence = np.exp(-(((float(middle[1]) + 20) / 18) ** 2))
    difficulty = np.clip((depth - 9) / 20, 0, 1) * 0.85 + 0.6 * eloquence
    reached = furthest * np.clip(1.3 - difficulty, -0.2, 1.3)
    rough = 1.5 * residual * smooth_noise(rng, tumour.shape, 4.0 / subject.spacing)[0]
    # Surgeons follow the soft core and leave a shell on the far side.
    core = 1.6 * np.maximum(-tumour - 3.5, 0)
    return smooth_maximum(tumour, along - reached + rough - core, 1.0).astype(np.float32)


def _largest(level: np.ndarray) -> np.ndarray:
    """The level set without its islands."""
    parts, count = ndimage.label(level < 0)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        others = ndimage.binary_dilation((parts > 0) & (parts != sizes.argmax()), iterations=2)
        others &= parts != sizes.argmax()
        level = np.where(others, np.maximum(level, 1.5), level)
    return level.astype(np.float32)


def _nearest(positions: np.ndarray, point: np.ndarray, spacing: float) -> tuple[int, ...]:
    first = positions.reshape(positions.shape[0], -1)[:, 0]
    return tuple(round(i) for i in (point - first) / spacing)
