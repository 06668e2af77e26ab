"""Squarings of a 3D displacement, u(p) + u(p + u(p)), forward and backward.

The fields lie with their components together, (Z, Y, X, 4) with the fourth unused: a corner is then one
aligned load of four floats, and one squaring reads eight of them a voxel.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
from numba import prange

from whence.kernels.cpu.launch import inner, outer

F = np.float32
U = np.uintp
ZERO, ONE = F(0), F(1)


@outer
def pack(field, packed, batch, N, factor):
    """(B, 3, N) times a factor, as (B, N, 4)."""
    rows = max(1, N // 4096)
    for unit in prange(batch * rows):
        b, row = unit // rows, unit % rows
        for i in range(row * N // rows, (row + 1) * N // rows):
            for c in range(3):
                packed[U(4 * (b * N + i) + c)] = factor * field[U((3 * b + c) * N + i)]
            packed[U(4 * (b * N + i) + 3)] = ZERO


@outer
def unpack(packed, field, batch, N, factor):
    """(B, N, 4) times a factor, as (B, 3, N)."""
    rows = max(1, N // 4096)
    for unit in prange(batch * rows):
        b, row = unit // rows, unit % rows
        for i in range(row * N // rows, (row + 1) * N // rows):
            for c in range(3):
                field[U((3 * b + c) * N + i)] = factor * packed[U(4 * (b * N + i) + c)]


@inner
def _axis(x, n):
    """The two voxels around x inside the lattice, the weight of the second (NaN if x is), and its derivative."""
    last = F(n - 1)
    s = x if x > ZERO else ZERO
    s = s if s < last else last
    i = int(s)
    return i, (i + 1 if i < n - 1 else i), (s - F(i) if x == x else x), (ONE if ZERO < x < last else ZERO)


@outer
def square(u, result, batch, Z, Y, X):
    for unit in prange(batch * Z):
        volume = 4 * Z * Y * X
        b, z = unit // Z, unit % Z
        for y in range(Y):
            _square_row(u[U(b * volume) :], result[U(b * volume) :], z, y, Z, Y, X)


@inner
def _square_row(u, result, z, y, Z, Y, X):
    start = 4 * (z * Y + y) * X
    for x in range(X):
        o = start + 4 * x
        z0, z1, tz, _ = _axis(F(z) + u[U(o)], Z)
        y0, y1, ty, _ = _axis(F(y) + u[U(o + 1)], Y)
        x0, x1, tx, _ = _axis(F(x) + u[U(o + 2)], X)
        a, b, c, d = (z0 * Y + y0) * X, (z0 * Y + y1) * X, (z1 * Y + y0) * X, (z1 * Y + y1) * X
        wa, wb, wc, wd = (ONE - tz) * (ONE - ty), (ONE - tz) * ty, tz * (ONE - ty), tz * ty
        a0, b0, c0, d0 = 4 * (a + x0), 4 * (b + x0), 4 * (c + x0), 4 * (d + x0)
        a1, b1, c1, d1 = 4 * (a + x1), 4 * (b + x1), 4 * (c + x1), 4 * (d + x1)
        wa0, wb0, wc0, wd0 = wa * (ONE - tx), wb * (ONE - tx), wc * (ONE - tx), wd * (ONE - tx)
        wa1, wb1, wc1, wd1 = wa * tx, wb * tx, wc * tx, wd * tx
        for k in range(4):
            low = wa0 * u[U(a0 + k)] + wb0 * u[U(b0 + k)] + wc0 * u[U(c0 + k)] + wd0 * u[U(d0 + k)]
            high = wa1 * u[U(a1 + k)] + wb1 * u[U(b1 + k)] + wc1 * u[U(c1 + k)] + wd1 * u[U(d1 + k)]
            result[U(o + k)] = u[U(o + k)] + low + high


@outer
def reach(u, touched, batch, Z, Y, X):
    """First and last plane that each row of the field reaches, itself included."""
    for unit in prange(batch * Z):
        z, top = F(unit % Z), F(Z - 1)
        for y in range(Y):
            start = 4 * (unit * Y + y) * X
            low = high = ZERO
            for x in range(X):
                v = u[U(start + 4 * x)]
                low, high = (v if v < low else low), (v if v > high else high)
            touched[U(2 * (unit * Y + y))] = max(np.floor(low + z), ZERO)
            touched[U(2 * (unit * Y + y) + 1)] = min(np.floor(high + z) + ONE, top)


@outer
def square_backward(u, grad, result, touched, batch, Z, Y, X, chunks):
    """Gradient of a squaring. A slab belongs to one task, as in the sampling."""
    for unit in prange(batch * chunks):
        volume = 4 * Z * Y * X
        b, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        u_b, grad_b, result_b = u[U(b * volume) :], grad[U(b * volume) :], result[U(b * volume) :]
        for i in range(4 * low * Y * X, 4 * high * Y * X):
            result_b[U(i)] = grad_b[U(i)]
        for row in range(Z * Y):
            first, last = touched[U(2 * (b * Z * Y + row))], touched[U(2 * (b * Z * Y + row) + 1)]
            if first < high and last >= low:
                _backward_row(u_b, grad_b, result_b, row // Y, row % Y, Z, Y, X, low, high)


@inner
def _backward_row(u, grad, result, z, y, Z, Y, X, low, high):
    own = low <= z < high
    start = 4 * (z * Y + y) * X
    for x in range(X):
        o = start + 4 * x
        z0, z1, tz, mz = _axis(F(z) + u[U(o)], Z)
        has0, has1 = low <= z0 < high, low <= z1 < high
        if not (own or has0 or has1):
            continue
        y0, y1, ty, my = _axis(F(y) + u[U(o + 1)], Y)
        x0, x1, tx, mx = _axis(F(x) + u[U(o + 2)], X)
        if tz * ty * tx != tz * ty * tx:
            continue
        sz, sy, sx = ONE - tz, ONE - ty, ONE - tx
        a, b, c, d = (z0 * Y + y0) * X, (z0 * Y + y1) * X, (z1 * Y + y0) * X, (z1 * Y + y1) * X
        a0, b0, c0, d0 = 4 * (a + x0), 4 * (b + x0), 4 * (c + x0), 4 * (d + x0)
        a1, b1, c1, d1 = 4 * (a + x1), 4 * (b + x1), 4 * (c + x1), 4 * (d + x1)
        if own:
            va0 = va1 = vb0 = vb1 = vc0 = vc1 = vd0 = vd1 = ZERO
            for k in range(3):
                g = grad[U(o + k)]
                va0 += g * u[U(a0 + k)]
                va1 += g * u[U(a1 + k)]
                vb0 += g * u[U(b0 + k)]
                vb1 += g * u[U(b1 + k)]
                vc0 += g * u[U(c0 + k)]
                vc1 += g * u[U(c1 + k)]
                vd0 += g * u[U(d0 + k)]
                vd1 += g * u[U(d1 + k)]
            va, vb, vc, vd = sx * va0 + tx * va1, sx * vb0 + tx * vb1, sx * vc0 + tx * vc1, sx * vd0 + tx * vd1
            if mz != ZERO:
                result[U(o)] += sy * (vc - va) + ty * (vd - vb)
            if my != ZERO:
                result[U(o + 1)] += sz * (vb - va) + tz * (vd - vc)
            if mx != ZERO:
                result[U(o + 2)] += sz * (sy * (va1 - va0) + ty * (vb1 - vb0)) + tz * (
                    sy * (vc1 - vc0) + ty * (vd1 - vd0)
                )
        if has0:
            wa0, wa1, wb0, wb1 = sz * sy * sx, sz * sy * tx, sz * ty * sx, sz * ty * tx
            for k in range(4):
                result[U(a0 + k)] += wa0 * grad[U(o + k)]
            for k in range(4):
                result[U(a1 + k)] += wa1 * grad[U(o + k)]
            for k in range(4):
                result[U(b0 + k)] += wb0 * grad[U(o + k)]
            for k in range(4):
                result[U(b1 + k)] += wb1 * grad[U(o + k)]
        if has1:
            wc0, wc1, wd0, wd1 = tz * sy * sx, tz * sy * tx, tz * ty * sx, tz * ty * tx
            for k in range(4):
                result[U(c0 + k)] += wc0 * grad[U(o + k)]
            for k in range(4):
                result[U(c1 + k)] += wc1 * grad[U(o + k)]
            for k in range(4):
                result[U(d0 + k)] += wd0 * grad[U(o + k)]
            for k in range(4):
                result[U(d1 + k)] += wd1 * grad[U(o + k)]
