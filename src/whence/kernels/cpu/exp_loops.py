"""Squarings of a 3D displacement, u(p) + u(p + u(p)), forward and backward.

The fields lie with their components together, (Z, Y, X, 4) with the fourth unused: a corner is then one
aligned load of four floats, and one squaring reads eight of them a voxel. As in the sampling, a row goes in
blocks: first the neighbours and weights, without branches, then the voxels.
"""

# ruff: noqa: N803
from __future__ import annotations

import numpy as np
from numba import prange

from whence.kernels.cpu.launch import inner, outer
from whence.kernels.cpu.vectors import add4, blend4

F, INT = np.float32, np.int32
U = np.uintp
ZERO, ONE = F(0), F(1)
# Voxels of a block.
L = 128


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
def _lay(u, count, origin, step, n, stride, near, weight, a, slopes):
    """Along axis ``a``: both neighbours times stride, the weight of the second (NaN for NaN), and its derivative."""
    last, end = F(n - 1), INT(n - 1)
    for r in range(count):
        v = u[U(4 * r)] + (origin + step * F(r))
        s = v if v > ZERO else ZERO
        s = s if s < last else last
        i = INT(s)
        near[U(2 * a * L + r)] = INT(i * stride)
        near[U((2 * a + 1) * L + r)] = INT(min(INT(i + INT(1)), end) * stride)
        weight[U(2 * a * L + r)] = s - F(i) if v == v else v
    if slopes:
        for r in range(count):
            v = u[U(4 * r)] + (origin + step * F(r))
            weight[U((2 * a + 1) * L + r)] = ONE if (v > ZERO) & (v < last) else ZERO


@inner
def _lay_all(u, near, weight, z, y, first, count, Z, Y, X, slopes):
    o = 4 * ((z * Y + y) * X + first)
    _lay(u[U(o) :], count, F(z), ZERO, Z, INT(4 * Y * X), near, weight, 0, slopes)
    _lay(u[U(o + 1) :], count, F(y), ZERO, Y, INT(4 * X), near, weight, 1, slopes)
    _lay(u[U(o + 2) :], count, F(first), ONE, X, INT(4), near, weight, 2, slopes)


@outer
def square(u, result, batch, Z, Y, X):
    for unit in prange(batch * Z):
        b, z = unit // Z, unit % Z
        near, weight = np.empty(6 * L, INT), np.empty(6 * L, F)
        field = u[U(4 * b * Z * Y * X) :]
        for y in range(Y):
            for first in range(0, X, L):
                count = min(L, X - first)
                _lay_all(field, near, weight, z, y, first, count, Z, Y, X, False)
                o = 4 * ((z * Y + y) * X + first)
                _square_block(field, field[U(o) :], result[U(4 * b * Z * Y * X + o) :], near, weight, count)


@inner
def _square_block(u, here, result, near, weight, count):
    for r in range(count):
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        tz, ty, tx = weight[r], weight[2 * L + r], weight[4 * L + r]
        a, b, c, d = z0 + y0, z0 + y1, z1 + y0, z1 + y1
        wd, o = tz * ty, 4 * r
        wc, wb = tz - wd, ty - wd
        wa = ONE - tz - wb
        wa1, wb1, wc1, wd1 = wa * tx, wb * tx, wc * tx, wd * tx
        wa0, wb0, wc0, wd0 = wa - wa1, wb - wb1, wc - wc1, wd - wd1
        places = (a + x0, b + x0, c + x0, d + x0, a + x1, b + x1, c + x1, d + x1)
        blend4(result, o, here, o, u, places, (wa0, wb0, wc0, wd0, wa1, wb1, wc1, wd1))


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
        volume, plane = 4 * Z * Y * X, 4 * Y * X
        b, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        near, weight = np.empty(6 * L, INT), np.empty(6 * L, F)
        field, given, total = u[U(b * volume) :], grad[U(b * volume) :], result[U(b * volume) :]
        for i in range(low * plane, high * plane):
            total[U(i)] = given[U(i)]
        for row in range(Z * Y):
            z, y = row // Y, row % Y
            first_plane, last_plane = touched[U(2 * (b * Z * Y + row))], touched[U(2 * (b * Z * Y + row) + 1)]
            if first_plane >= high or last_plane < low:
                continue
            own = low <= z < high
            for first in range(0, X, L):
                count, o = min(L, X - first), U(4 * (row * X + first))
                _lay_all(field, near, weight, z, y, first, count, Z, Y, X, own)
                if own:
                    _slopes_block(field, given[o:], total[o:], near, weight, count)
                _scatter_block(given[o:], total, near, weight, count, low * plane, high * plane)


@inner
def _slopes_block(u, grad, result, near, weight, count):
    for r in range(count):
        tz, ty, tx = weight[r], weight[2 * L + r], weight[4 * L + r]
        if tz * ty * tx != tz * ty * tx:
            continue
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        mz, my, mx = weight[L + r], weight[3 * L + r], weight[5 * L + r]
        sz, sy, sx, o = ONE - tz, ONE - ty, ONE - tx, 4 * r
        a, b, c, d = z0 + y0, z0 + y1, z1 + y0, z1 + y1
        va0 = va1 = vb0 = vb1 = vc0 = vc1 = vd0 = vd1 = ZERO
        for k in range(3):
            g = grad[U(o + k)]
            va0 += g * u[U(a + x0 + k)]
            va1 += g * u[U(a + x1 + k)]
            vb0 += g * u[U(b + x0 + k)]
            vb1 += g * u[U(b + x1 + k)]
            vc0 += g * u[U(c + x0 + k)]
            vc1 += g * u[U(c + x1 + k)]
            vd0 += g * u[U(d + x0 + k)]
            vd1 += g * u[U(d + x1 + k)]
        va, vb, vc, vd = sx * va0 + tx * va1, sx * vb0 + tx * vb1, sx * vc0 + tx * vc1, sx * vd0 + tx * vd1
        # An axis without a slope gives nothing, even beside a NaN.
        if mz != ZERO:
            result[U(o)] += sy * (vc - va) + ty * (vd - vb)
        if my != ZERO:
            result[U(o + 1)] += sz * (vb - va) + tz * (vd - vc)
        if mx != ZERO:
            low, high = sy * (va1 - va0) + ty * (vb1 - vb0), sy * (vc1 - vc0) + ty * (vd1 - vd0)
            result[U(o + 2)] += sz * low + tz * high


@inner
def _scatter_block(grad, result, near, weight, count, low, high):
    for r in range(count):
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        tz, ty, tx, o = weight[r], weight[2 * L + r], weight[4 * L + r], 4 * r
        if tz * ty * tx != tz * ty * tx:
            continue
        if low <= z0 < high:
            wa, wb = (ONE - tz) * (ONE - ty), (ONE - tz) * ty
            add4(result, z0 + y0 + x0, wa * (ONE - tx), grad, o)
            add4(result, z0 + y0 + x1, wa * tx, grad, o)
            add4(result, z0 + y1 + x0, wb * (ONE - tx), grad, o)
            add4(result, z0 + y1 + x1, wb * tx, grad, o)
        if low <= z1 < high:
            wa, wb = tz * (ONE - ty), tz * ty
            add4(result, z1 + y0 + x0, wa * (ONE - tx), grad, o)
            add4(result, z1 + y0 + x1, wa * tx, grad, o)
            add4(result, z1 + y1 + x0, wb * (ONE - tx), grad, o)
            add4(result, z1 + y1 + x1, wb * tx, grad, o)
