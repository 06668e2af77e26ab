"""A whole head around the template's brain: tissue shares with ventricles, deep grey matter, skull and scalp."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from whence.data.phantom.anatomy import BRAIN, GM, WM, Anatomy, _head
from whence.data.phantom.modalities import AIR, CSF, DEEP, GREY, SCALP, SKULL, VENTRICLES, WHITE
from whence.data.phantom.shapes import inside
from whence.space import Grid

REACH = 40.0  # mm outside the brain to which distances are known
CLOSING = 9.0  # mm: gyri narrower than twice this do not dent the skull
GAP, BONE, SKIN = 2.0, 6.5, 5.5  # mm: fluid below the skull, skull, scalp


def distance_map(dims: int, level: int = 12) -> Anatomy:
    """How deep a point lies below a surface ``REACH`` mm outside the brain's hull, mm; 0 beyond."""
    head = _hull()
    if dims == 3:
        return head
    row = round(float(level - head.grid.affine[2, 3]))
    flat = np.eye(3)
    flat[:2, 2] = head.grid.affine[:2, 3]
    return Anatomy(head.maps[..., row].contiguous(), Grid(head.maps.shape[1:3], flat))


def tissue_shares(
    maps: np.ndarray, hull: np.ndarray, points: np.ndarray, uneven: np.ndarray, spacing: float, level: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Shares (8, *shape) of the tissues in each voxel, sum 1, and the marrow's share (*shape) of the skull.

    ``maps`` (4, *shape) are the template's, ``hull`` (*shape) the depth of ``distance_map``, ``points``
    (D, *shape) positions in the template (RAS mm), ``uneven`` (*shape) the variation of the shells'
    thickness in mm, ``level`` the axial level of 2D points.
    """
    edge = max(0.35 * spacing, 0.4)
    outside = REACH - hull
    within = inside(outside - GAP - 0.5 * uneven, edge)
    skull = inside(outside - GAP - BONE - uneven, edge)
    skin = inside(outside - GAP - BONE - SKIN - 1.3 * uneven, edge)

    grey, white = np.clip(maps[GM], 0, 1), np.clip(maps[WM], 0, 1)
    fluid = np.clip(maps[BRAIN] - grey - white, 0, 1) + np.clip(within - maps[BRAIN], 0, 1)
    # The template is a mean of 152 people; a power makes its borders those of one.
    sharp = np.stack([fluid, grey, white]).astype(np.float64) ** 3
    sharp /= np.maximum(sharp.sum(axis=0), 1e-9)
    fluid, grey, white = sharp * within

    x, y = np.abs(points[0]), points[1]
    z = points[2] if level is None else np.full_like(x, float(level))
    deep = _box((x, 1.5, 31.0), (y, -33.0, 21.0), (z, -9.0, 20.0))
    inner = _box((x, -5.0, 31.0), (y, -56.0, 36.0), (z, -14.0, 32.0))

    shares = np.zeros((8, *hull.shape), dtype=np.float32)
    shares[VENTRICLES], shares[CSF] = fluid * inner, fluid * (1 - inner)
    shares[DEEP], shares[GREY] = grey * deep, grey * (1 - deep)
    shares[WHITE] = white
    shares[SKULL] = np.clip(skull - within, 0, 1)
    shares[SCALP] = np.clip(skin - np.maximum(skull, within), 0, 1)
    shares[AIR] = np.clip(1 - shares[1:].sum(axis=0), 0, 1)
    middle = outside - GAP - 0.5 * BONE - 0.75 * uneven
    marrow = inside(np.abs(middle) - 0.22 * BONE, edge)
    return shares, marrow.astype(np.float32)


def _box(*sides: tuple[np.ndarray, float, float]) -> np.ndarray:
    """Soft membership of a box, a millimetre at its faces."""
    total = np.ones_like(sides[0][0], dtype=np.float64)
    for values, low, high in sides:
        total = total * inside(low - values, 1.0) * inside(values - high, 1.0)
    return total


@lru_cache(maxsize=1)
def _hull() -> Anatomy:
    brain = _head(0.0)
    margin = round(REACH) + 2
    mask = np.pad(brain.maps[BRAIN].numpy() > 0.5, margin)
    grown = ndimage.distance_transform_edt(~mask) <= CLOSING
    closed = ndimage.distance_transform_edt(grown) > CLOSING
    away = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    depth = np.clip(REACH - ndimage.gaussian_filter(away, 1.5), 0, None).astype(np.float32)
    grid = brain.grid.cropped((-margin,) * 3, depth.shape)
    return Anatomy(torch.from_numpy(depth)[None], grid)
