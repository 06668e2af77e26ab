"""Where a displacement sends given points from, each point iterated until it is found."""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
import torch
from numba import prange

from whence.kernels.cpu.launch import inner, outer, run

F, INT = np.float32, np.int32
U = np.uintp
ZERO, ONE = F(0), F(1)


def solve(displacement: torch.Tensor, targets: torch.Tensor, tolerance: float, iterations: int) -> torch.Tensor:
    """As the reference's ``solve``; without a gradient."""
    batch, dims = max(displacement.shape[0], targets.shape[0]), displacement.shape[1]
    result = targets.new_empty((batch, *targets.shape[1:]))
    out = targets.shape[2:]
    rows = out[:-1].numel() if len(out) > 1 else 1
    shape = tuple(displacement.shape[2:])
    three = (shape[0], 1, shape[1]) if dims == 2 else shape
    batches = (batch, displacement.shape[0], targets.shape[0])
    arrays = (displacement.contiguous(), targets.contiguous(), result)
    run(_solve, *arrays, dims, three, rows, out[-1], batches, F(tolerance), iterations)
    return result


@inner
def _lay(v, n):
    """Lower neighbour on an axis of n voxels, and the weight of the upper one."""
    s = v if v > ZERO else ZERO
    s = s if s < F(n - 1) else F(n - 1)
    i = INT(s)
    i = i if i < n - 1 or n == 1 else INT(n - 2)
    return i, s - F(i)


@inner
def _blend(u, at, sz, sy, sx, tz, ty, tx):
    """Trilinear value; ``s`` are the steps to the upper neighbours."""
    low = (ONE - ty) * ((ONE - tx) * u[U(at)] + tx * u[U(at + sx)])
    low += ty * ((ONE - tx) * u[U(at + sy)] + tx * u[U(at + sy + sx)])
    high = (ONE - ty) * ((ONE - tx) * u[U(at + sz)] + tx * u[U(at + sz + sx)])
    high += ty * ((ONE - tx) * u[U(at + sz + sy)] + tx * u[U(at + sz + sy + sx)])
    return (ONE - tz) * low + tz * high


@inner
def _at(u, dims, z, y, x, Z, Y, X, N):
    """The displacement at a point, along the three axes."""
    i, tz = _lay(z, Z)
    j, ty = _lay(y, Y)
    k, tx = _lay(x, X)
    sz, sy, sx = (Y * X if Z > 1 else 0), (X if Y > 1 else 0), (1 if X > 1 else 0)
    at = (np.int64(i) * Y + j) * X + k
    a = _blend(u, at, sz, sy, sx, tz, ty, tx)
    b = _blend(u, at + N, sz, sy, sx, tz, ty, tx) if dims == 3 else ZERO
    c = _blend(u, at + (dims - 1) * N, sz, sy, sx, tz, ty, tx)
    return a, b, c


@outer
def _solve(displacement, targets, result, dims, shape, rows, X_out, batches, tolerance, iterations):
    Z, Y, X = shape
    N, M = Z * Y * X, rows * X_out
    batch, B_u, B_t = batches
    for unit in prange(batch * rows):
        b, row = unit // rows, unit % rows
        u = displacement[U((b % B_u) * dims * N) : U((b % B_u + 1) * dims * N)]
        wanted = targets[U((b % B_t) * dims * M) : U((b % B_t + 1) * dims * M)]
        found = result[U(b * dims * M) : U((b + 1) * dims * M)]
        # A point starts as far from its target as its neighbour ended.
        dz, dy, dx = ZERO, ZERO, ZERO
        for q in range(X_out):
            o = row * X_out + q
            tz, tx = wanted[U(o)], wanted[U(o + (dims - 1) * M)]
            ty = wanted[U(o + M)] if dims == 3 else ZERO
            z, y, x = tz + dz, ty + dy, tx + dx
            step, previous = ONE, F(np.inf)
            for _ in range(iterations):
                a, c, d = _at(u, dims, z, y, x, Z, Y, X, N)
                rz, ry, rx = tz - a - z, ty - c - y, tx - d - x
                size = np.sqrt(rz * rz + ry * ry + rx * rx)
                if size != size or size <= tolerance:
                    break
                if size > previous:
                    step = max(step * F(0.5), F(0.125))
                previous = size
                z, y, x = z + step * rz, y + step * ry, x + step * rx
            found[U(o)] = z
            if dims == 3:
                found[U(o + M)] = y
            found[U(o + (dims - 1) * M)] = x
            known = z - tz == z - tz and y - ty == y - ty and x - tx == x - tx
            dz, dy, dx = (z - tz, y - ty, x - tx) if known else (ZERO, ZERO, ZERO)
