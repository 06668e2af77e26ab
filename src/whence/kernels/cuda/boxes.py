"""Sums over cubic windows: side by side along x, then sliding along y, then along z.

A program slides over a stretch of an axis with the sum in float64, so that the time hardly depends on the window
(along x, where neighbours lie side by side, it does). Volumes are (images, Z, Y, X), a 2D image is (Y, 1, X).
Rules say what lies beyond the ends: nothing (``CUT``), the last voxel again (``REPEAT``), or the adjoint of that.
"""

# ruff: noqa: N803
from __future__ import annotations

import torch
import triton
import triton.language as tl

from whence.kernels.cuda.launch import LANES, blocks, run, slide

CUT, REPEAT, ADJOINT = 0, 1, 2
SIZES = ["Z", "Y", "X", "radius_z", "radius_y", "radius_x", "chunk", "blocks", "lanes"]

# Compiled code reads constants only if they say so.
_REPEAT = tl.constexpr(REPEAT)
_ADJOINT = tl.constexpr(ADJOINT)


def radii(sizes: tuple[int, int, int], radius: int) -> tuple[int, int, int]:
    """The window's radius along each axis; 0 along one of a single voxel, whose windows hold nothing else."""
    z, y, x = (radius if n > 1 else 0 for n in sizes)
    return z, y, x


def sheets(volumes: torch.Tensor, result: torch.Tensor, sizes: tuple[int, int, int], radius: int, rule: int) -> None:
    """Sums over x and y of volumes (images, Z, Y, X)."""
    _, radius_y, radius_x = radii(sizes, radius)
    _, y, x = sizes
    chunk, many = slide(radius_y), blocks(x, LANES)
    programs = volumes.numel() // (y * x) * blocks(y, chunk) * many
    arguments = (volumes, result, y, x, radius_y, radius_x, chunk, many)
    run(_sheets, programs, *arguments, warps=LANES // 32, RULE=rule, LANES=LANES)


def means(volumes: torch.Tensor, sizes: tuple[int, int, int], radius: int, adjoint: bool) -> None:
    """Means over windows whose ends repeat, or what the adjoint of that makes of the volumes; in place."""
    rule, spare = ADJOINT if adjoint else REPEAT, torch.empty_like(volumes)
    sheets(volumes, spare, sizes, radius, rule)
    radius_z, radius_y, radius_x = radii(sizes, radius)
    scale = 1 / ((2 * radius_z + 1) * (2 * radius_y + 1) * (2 * radius_x + 1))
    z, y, x = sizes
    chunk, many = slide(radius_z), blocks(y * x, LANES)
    programs = volumes.numel() // (z * y * x) * blocks(z, chunk) * many
    arguments = (spare, volumes, z, y * x, radius_z, scale, chunk, many)
    run(_columns, programs, *arguments, warps=LANES // 32, RULE=rule, LANES=LANES)


@triton.jit
def _more(i, j, n, radius):
    """How many windows beyond the ends the adjoint adds to the last voxel i for voxel j in the window of i."""
    return tl.where(i == 0, radius - j, 0) + tl.where(i == n - 1, radius - (n - 1 - j), 0)


@triton.jit
def within(i, n, extent):
    """``extent`` if i is one of n, else 0."""
    return tl.where((i >= 0) & (i < n), extent, 0)


@triton.jit
def _row(plane, y, x, Y, X, radius, RULE: tl.constexpr, LANES: tl.constexpr):
    """Sums over the windows along a row of a plane, in float64; beyond the ends what the rule says."""
    if RULE == _REPEAT:
        y = tl.minimum(tl.maximum(y, 0), Y - 1)
    row, there = plane + y * X, x < within(y, Y, X)
    total = tl.zeros((LANES,), tl.float32)
    for k in range(-radius, radius + 1):
        j = x + k
        if RULE == _REPEAT:
            total += tl.load(row + tl.minimum(tl.maximum(j, 0), X - 1), mask=there, other=0.0)
        else:
            value = tl.load(row + j, mask=there & (j >= 0) & (j < X), other=0.0)
            if RULE == _ADJOINT:
                value *= 1 + _more(x, j, X, radius)
            total += value
    return total.to(tl.float64)


@triton.jit(do_not_specialize=SIZES)
def _sheets(
    volumes, result, Y, X, radius_y, radius_x, chunk, blocks, RULE: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    unit = tl.program_id(0)
    x = unit % blocks * LANES + tl.arange(0, LANES)
    mask = x < X
    chunks = tl.cdiv(Y, chunk)
    low = unit // blocks % chunks * chunk
    high = tl.minimum(low + chunk, Y)
    offset = (unit // blocks // chunks).to(tl.int64) * Y * X
    plane, place = volumes + offset, result + offset + x
    total = tl.zeros((LANES,), tl.float64)
    for y in range(low - radius_y, low + radius_y):
        total += _row(plane, y, x, Y, X, radius_x, RULE, LANES)
    for y in range(low, high):
        total += _row(plane, y + radius_y, x, Y, X, radius_x, RULE, LANES)
        value = total
        if RULE == _ADJOINT:
            reach = tl.where((y == 0) | (y == Y - 1), radius_y, -1)
            for j in range(tl.maximum(y - reach, 0), tl.minimum(y + reach + 1, Y)):
                value += _row(plane, j, x, Y, X, radius_x, RULE, LANES) * _more(y, j, Y, radius_y)
        tl.store(place + y * X, value.to(result.dtype.element_ty), mask=mask)
        total -= _row(plane, y - radius_y, x, Y, X, radius_x, RULE, LANES)


@triton.jit
def _at(volume, z, i, Z, lanes, RULE: tl.constexpr):
    """A plane's voxels in float64; beyond the ends what the rule says."""
    if RULE == _REPEAT:
        z = tl.minimum(tl.maximum(z, 0), Z - 1)
    return tl.load(volume + z * lanes + i, mask=i < within(z, Z, lanes), other=0.0).to(tl.float64)


@triton.jit(do_not_specialize=SIZES)
def _columns(
    volumes, result, Z, lanes, radius_z, scale, chunk, blocks, RULE: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    unit = tl.program_id(0)
    i = unit % blocks * LANES + tl.arange(0, LANES)
    mask = i < lanes
    chunks = tl.cdiv(Z, chunk)
    low = unit // blocks % chunks * chunk
    high = tl.minimum(low + chunk, Z)
    offset = (unit // blocks // chunks).to(tl.int64) * Z * lanes
    volume, place = volumes + offset, result + offset + i
    total = tl.zeros((LANES,), tl.float64)
    for z in range(low - radius_z, low + radius_z):
        total += _at(volume, z, i, Z, lanes, RULE)
    for z in range(low, high):
        total += _at(volume, z + radius_z, i, Z, lanes, RULE)
        value = total
        if RULE == _ADJOINT:
            reach = tl.where((z == 0) | (z == Z - 1), radius_z, -1)
            for j in range(tl.maximum(z - reach, 0), tl.minimum(z + reach + 1, Z)):
                value += _at(volume, j, i, Z, lanes, RULE) * _more(z, j, Z, radius_z)
        tl.store(place + z * lanes, (value * scale).to(tl.float32), mask=mask)
        total -= _at(volume, z - radius_z, i, Z, lanes, RULE)
