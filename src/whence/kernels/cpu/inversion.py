"""Where a displacement sends given points from, each point sought on its own."""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
import torch
from numba import prange

from whence.kernels.cpu.launch import inner, outer, run
from whence.kernels.reference.inversion import FLAT, SMALLEST

F, INT = np.float32, np.int32
U = np.uintp
ZERO, HALF, ONE = F(0), F(0.5), F(1)
SMALLEST, FLAT = F(SMALLEST), F(FLAT)


def solve(
    displacement: torch.Tensor,
    targets: torch.Tensor,
    tolerance: float,
    iterations: int,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """As the reference's ``solve``; without a gradient."""
    batch, dims = max(displacement.shape[0], targets.shape[0]), displacement.shape[1]
    result = (targets if start is None else start).expand(batch, *targets.shape[1:]).contiguous().clone()
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
    """Lower neighbour on an axis of n voxels, the weight of the upper one, and whether the value changes along it."""
    s = v if v > ZERO else ZERO
    s = s if s < F(n - 1) else F(n - 1)
    i = INT(s)
    i = i if i < n - 1 or n == 1 else INT(n - 2)
    return i, s - F(i), ONE if s == v and n > 1 else ZERO


@inner
def _blend(u, at, sz, sy, sx, tz, ty, tx):
    """Trilinear value and its slopes; ``s`` are the steps to the upper neighbours."""
    v000, v001 = u[U(at)], u[U(at + sx)]
    v010, v011 = u[U(at + sy)], u[U(at + sy + sx)]
    v100, v101 = u[U(at + sz)], u[U(at + sz + sx)]
    v110, v111 = u[U(at + sz + sy)], u[U(at + sz + sy + sx)]
    x00, x01, x10, x11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
    a00, a01, a10, a11 = v000 + tx * x00, v010 + tx * x01, v100 + tx * x10, v110 + tx * x11
    low, high = a00 + ty * (a01 - a00), a10 + ty * (a11 - a10)
    along_y = (ONE - tz) * (a01 - a00) + tz * (a11 - a10)
    along_x = (ONE - tz) * ((ONE - ty) * x00 + ty * x01) + tz * ((ONE - ty) * x10 + ty * x11)
    return low + tz * (high - low), high - low, along_y, along_x


@inner
def _newton(rz, ry, rx, zz, zy, zx, yz, yy, yx, xz, xy, xx):
    """The step that undoes a residual where the map is linear; the residual itself where it is too flat."""
    czz, czy, czx = yy * xx - yx * xy, yx * xz - yz * xx, yz * xy - yy * xz
    det = zz * czz + zy * czy + zx * czx
    if not det > FLAT:
        return rz, ry, rx
    over = ONE / det
    cyz, cyy, cyx = zx * xy - zy * xx, zz * xx - zx * xz, zy * xz - zz * xy
    cxz, cxy, cxx = zy * yx - zx * yy, zx * yz - zz * yx, zz * yy - zy * yz
    return (
        over * (czz * rz + cyz * ry + cxz * rx),
        over * (czy * rz + cyy * ry + cxy * rx),
        over * (czx * rz + cyx * ry + cxx * rx),
    )


@outer
def _solve(displacement, targets, result, dims, shape, rows, X_out, batches, tolerance, iterations):
    Z, Y, X = shape
    N, M = Z * Y * X, rows * X_out
    batch, B_u, B_t = batches
    sz, sy, sx = (Y * X if Z > 1 else 0), (X if Y > 1 else 0), (1 if X > 1 else 0)
    for unit in prange(batch * rows):
        b, row = unit // rows, unit % rows
        u = displacement[U((b % B_u) * dims * N) : U((b % B_u + 1) * dims * N)]
        wanted = targets[U((b % B_t) * dims * M) : U((b % B_t + 1) * dims * M)]
        found = result[U(b * dims * M) : U((b + 1) * dims * M)]
        for q in range(X_out):
            o = row * X_out + q
            tz, tx = wanted[U(o)], wanted[U(o + (dims - 1) * M)]
            ty = wanted[U(o + M)] if dims == 3 else ZERO
            z, x = found[U(o)], found[U(o + (dims - 1) * M)]
            y = found[U(o + M)] if dims == 3 else ZERO
            from_z, from_y, from_x = z, y, x
            dz, dy, dx = ZERO, ZERO, ZERO
            step, least = ONE, F(np.inf)
            for _ in range(iterations):
                i, wz, gz = _lay(z, Z)
                j, wy, gy = _lay(y, Y)
                k, wx, gx = _lay(x, X)
                at = (np.int64(i) * Y + j) * X + k
                a, az, ay, ax = _blend(u, at, sz, sy, sx, wz, wy, wx)
                c, cz, cy, cx = ZERO, ZERO, ZERO, ZERO
                if dims == 3:
                    c, cz, cy, cx = _blend(u, at + N, sz, sy, sx, wz, wy, wx)
                d, ez, ey, ex = _blend(u, at + (dims - 1) * N, sz, sy, sx, wz, wy, wx)
                rz, ry, rx = tz - a - z, ty - c - y, tx - d - x
                size = np.sqrt(rz * rz + ry * ry + rx * rx)
                if size < least:
                    least, from_z, from_y, from_x = size, z, y, x
                    if size <= tolerance:
                        break
                    dz, dy, dx = _newton(
                        rz, ry, rx, ONE + gz * az, gy * ay, gx * ax, gz * cz, ONE + gy * cy, gx * cx,
                        gz * ez, gy * ey, ONE + gx * ex,
                    )  # fmt: skip
                    step = ONE
                else:
                    step *= HALF
                    if not step >= SMALLEST:
                        break
                z, y, x = from_z + step * dz, from_y + step * dy, from_x + step * dx
            if least == F(np.inf):
                from_z, from_y, from_x = F(np.nan), F(np.nan), F(np.nan)
            found[U(o)] = from_z
            if dims == 3:
                found[U(o + M)] = from_y
            found[U(o + (dims - 1) * M)] = from_x
