"""Linear and nearest sampling, forward and backward, in 2D and 3D.

Arrays are flat and C-ordered: image (B, C, *spatial), coordinates (B, D, *out), values (B, C, *out), where a
batch of one serves all. Lattices are given as three sizes, a 2D one as (rows, 1, columns). Of the ``flags``
(relative, zeros, nearest, add), ``relative`` coordinates are displacements from the output voxel, and ``add``
adds them to the values (composition). Gradients are added to what their arrays hold.

A row goes in blocks: ``lay`` finds the neighbours and weights along each axis, without branches so that it
is vectorised; then the voxels are read or written one by one.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
from numba import prange

from whence.kernels.cpu.launch import inner, outer

F, INT = np.float32, np.int32
# Unsigned indices, which spare the test for negative ones.
U = np.uintp
ZERO, ONE, NAN = F(0), F(1), F(np.nan)
# Voxels of a block. Six rows a axis: indices (0 lower, 1 upper), weights (0, 1), their derivatives (2, 3).
L = 128
OUTSIDE = INT(-(2**30))
# Tasks of a forward pass: more than any machine has threads, and no more, since each takes memory of its own.
UNITS = 256


@inner
def lay_border(coordinates, count, origin, step, n, stride, near, weight, a):
    """The two neighbours (times stride) of each coordinate along axis ``a`` of n voxels, and their weights.

    The weight of an unknown coordinate is NaN.
    """
    last = F(n - 1)
    for r in range(count):
        v = coordinates[r] + (origin + step * F(r))
        s = v if v > ZERO else ZERO
        s = s if s < last else last
        i = INT(s)
        t = s - F(i)
        near[U(2 * a * L + r)] = INT(i * stride)
        near[U((2 * a + 1) * L + r)] = INT(min(INT(i + INT(1)), INT(n - 1)) * stride)
        weight[U(4 * a * L + r)] = ONE - t if v == v else NAN
        weight[U((4 * a + 1) * L + r)] = t


@inner
def lay_zeros(coordinates, count, origin, step, n, stride, near, weight, a):
    """As ``lay_border``, but what lies outside weighs nothing: the lower neighbour is ``OUTSIDE`` where both do.

    A neighbour that is missing is replaced by the other, so that a NaN elsewhere cannot leak.
    """
    high, end = F(n + 1), INT(n)
    for r in range(count):
        v = coordinates[r] + (origin + step * F(r))
        s = v + ONE
        s = s if s > ZERO else ZERO
        s = s if s < high else high
        j = INT(s)
        t, i = s - F(j), INT(j - INT(1))
        there = ((v > -ONE) & (v < F(n))) | (v != v)
        near[U(2 * a * L + r)] = INT(max(i, INT(0)) * stride) if there else OUTSIDE
        near[U((2 * a + 1) * L + r)] = INT(min(j, INT(n - 1)) * stride)
        weight[U(4 * a * L + r)] = (ONE - t if i >= 0 else ZERO) if v == v else NAN
        weight[U((4 * a + 1) * L + r)] = t if j < end else ZERO


@inner
def lay_nearest(coordinates, count, origin, step, n, stride, near, weight, a, zeros):
    """As the others for the nearest voxel, which has all the weight."""
    last = F(n - 1)
    for r in range(count):
        v = np.rint(coordinates[r] + (origin + step * F(r)))
        s = v if v > ZERO else ZERO
        s = s if s < last else last
        beyond = zeros and (v < ZERO or v > last)
        near[U(2 * a * L + r)] = near[U((2 * a + 1) * L + r)] = OUTSIDE if beyond else INT(INT(s) * stride)
        weight[U(4 * a * L + r)], weight[U((4 * a + 1) * L + r)] = (ONE if v == v else NAN), ZERO


@inner
def lay_slopes(coordinates, count, origin, step, n, zeros, weight, a):
    """Derivatives of the two weights: none at and beyond a border that repeats, nor at a lone voxel's centre."""
    last = F(n - 1)
    for r in range(count):
        v = coordinates[r] + (origin + step * F(r))
        slope = ONE if ((v > ZERO) & (v < last)) | (zeros & ((n > 1) | (v != ZERO))) else ZERO
        weight[U((4 * a + 2) * L + r)] = ZERO if zeros & (v < ZERO) else -slope
        weight[U((4 * a + 3) * L + r)] = ZERO if zeros & (v >= last) else slope


@inner
def _lay_all(coordinates, near, weight, D, p, q, first, count, at, M, shape, flags, slopes):
    relative, zeros, nearest, _ = flags
    here = ONE if relative else ZERO
    for a in range(3):
        if a == 1 and D == 2:
            continue
        row = coordinates[U(at + (a if a < 2 else D - 1) * M) :]
        n = shape[a]
        stride = INT(1 if a == 2 else (shape[2] if a == 1 else shape[1] * shape[2]))
        origin = here * F(p if a == 0 else (q if a == 1 else first))
        step = here if a == 2 else ZERO
        if nearest:
            lay_nearest(row, count, origin, step, n, stride, near, weight, a, zeros)
        elif zeros:
            lay_zeros(row, count, origin, step, n, stride, near, weight, a)
        else:
            lay_border(row, count, origin, step, n, stride, near, weight, a)
        if slopes and not nearest:
            lay_slopes(row, count, origin, step, n, zeros, weight, a)


@outer
def forward(image, coordinates, values, D, shape, out, batches, C, flags):
    """Values at coordinates."""
    (P, Q, R), (B, B_image, B_coordinates) = out, batches
    M, N = P * Q * R, shape[0] * shape[1] * shape[2]
    units = min(B * P, UNITS)
    for unit in prange(units):
        near, weight = np.empty(6 * L, INT), np.empty(12 * L, F)
        for slab in range(unit * B * P // units, (unit + 1) * B * P // units):
            b, p = slab // P, slab % P
            where = coordinates[U((b % B_coordinates) * D * M) :]
            for q in range(Q):
                for first in range(0, R, L):
                    count, at = min(L, R - first), (p * Q + q) * R + first
                    _lay_all(where, near, weight, D, p, q, first, count, at, M, shape, flags, False)
                    for c in range(C):
                        picture = image[U(((b % B_image) * C + c) * N) :]
                        result = values[U((b * C + c) * M + at) :]
                        if D == 2 and not (flags[1] or flags[2]):
                            _values_2d_border(picture, near, weight, result, count)
                        elif D == 2:
                            _values_2d(picture, near, weight, result, count, flags[2])
                        else:
                            _values_3d(picture, near, weight, result, count, flags[2])
                        if flags[3]:
                            for r in range(count):
                                result[r] += where[U(c * M + at + r)]


@inner
def _values_2d_border(image, near, weight, values, count):
    """Of a border that repeats: without branches."""
    for r in range(count):
        y0, y1, x0, x1 = near[r], near[L + r], near[4 * L + r], near[5 * L + r]
        wx0, wx1 = weight[8 * L + r], weight[9 * L + r]
        low = wx0 * image[U(y0 + x0)] + wx1 * image[U(y0 + x1)]
        high = wx0 * image[U(y1 + x0)] + wx1 * image[U(y1 + x1)]
        values[r] = weight[r] * low + weight[L + r] * high


@inner
def _values_2d(image, near, weight, values, count, nearest):
    for r in range(count):
        y0, x0, wy0, wx0 = near[r], near[4 * L + r], weight[r], weight[8 * L + r]
        if (y0 | x0) < 0 or nearest:
            values[r] = (ZERO if (y0 | x0) < 0 else image[U(y0 + x0)]) * (wy0 * wx0)
            continue
        y1, x1, wy1, wx1 = near[L + r], near[5 * L + r], weight[L + r], weight[9 * L + r]
        low = wx0 * image[U(y0 + x0)] + wx1 * image[U(y0 + x1)]
        high = wx0 * image[U(y1 + x0)] + wx1 * image[U(y1 + x1)]
        values[r] = wy0 * low + wy1 * high


@inner
def _values_3d(image, near, weight, values, count, nearest):
    for r in range(count):
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        wz0, wy0, wx0 = weight[r], weight[4 * L + r], weight[8 * L + r]
        if (z0 | y0 | x0) < 0 or nearest:
            values[r] = (ZERO if (z0 | y0 | x0) < 0 else image[U(z0 + y0 + x0)]) * (wz0 * wy0 * wx0)
            continue
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        wz1, wy1, wx1 = weight[L + r], weight[5 * L + r], weight[9 * L + r]
        a, b, c, d = z0 + y0, z0 + y1, z1 + y0, z1 + y1
        wa, wb, wc, wd = wz0 * wy0, wz0 * wy1, wz1 * wy0, wz1 * wy1
        low = wa * image[U(a + x0)] + wb * image[U(b + x0)] + wc * image[U(c + x0)] + wd * image[U(d + x0)]
        high = wa * image[U(a + x1)] + wb * image[U(b + x1)] + wc * image[U(c + x1)] + wd * image[U(d + x1)]
        values[r] = wx0 * low + wx1 * high


@outer
def reach(coordinates, touched, D, n, out, batch, relative):
    """First and last voxel of the image's first axis (n voxels) that each row of the output touches."""
    P, Q, R = out
    for unit in prange(batch * P):
        b, p = unit // P, unit % P
        origin, top = F(p) if relative else ZERO, F(n - 1)
        for q in range(Q):
            start = ((b * D * P + p) * Q + q) * R
            low, high = F(np.inf), F(-np.inf)
            for i in range(start, start + R):
                v = coordinates[i]
                low, high = (v if v < low else low), (v if v > high else high)
            if low > high:
                # Unknowns alone touch nothing.
                low, high = F(n) - origin, -ONE - ONE - origin
            touched[2 * (unit * Q + q)] = INT(min(max(np.floor(low + origin), ZERO), top))
            touched[2 * (unit * Q + q) + 1] = INT(min(max(np.floor(high + origin) + ONE, ZERO), top))


@outer
def backward(image, coordinates, grad, grad_image, grad_coordinates, touched, D, shape, out, batches, C, chunks, flags):
    """Add the gradients of both inputs, of which an empty one is left out.

    A slab of the image's first axis belongs to one task, which takes its contributions in the order of the
    output's voxels: no two threads write to one voxel, and the result does not depend on their number.
    """
    Z, (P, Q, R), (B, B_image, B_coordinates) = shape[0], out, batches
    M, N = P * Q * R, Z * shape[1] * shape[2]
    want_image, want_coordinates = grad_image.size > 0, grad_coordinates.size > 0
    for unit in prange(B * chunks):
        b, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        begin, end = chunk * P // chunks, (chunk + 1) * P // chunks
        near, weight = np.empty(6 * L, INT), np.empty(12 * L, F)
        where = coordinates[U((b % B_coordinates) * D * M) :]
        for line in range(P * Q):
            p, q = line // Q, line % Q
            slope, hit = want_coordinates and begin <= p < end, False
            if want_image:
                row = (b % B_coordinates) * P * Q + line
                hit = chunks == 1 or (touched[U(2 * row)] < high and touched[U(2 * row + 1)] >= low)
            if not (slope or hit):
                continue
            for first in range(0, R, L):
                count, at = min(L, R - first), line * R + first
                _lay_all(where, near, weight, D, p, q, first, count, at, M, shape, flags, slope)
                for c in range(C):
                    given = grad[U((b * C + c) * M + at) :]
                    if slope and flags[3]:
                        shifted = grad_coordinates[U((b * D + c) * M + at) :]
                        for r in range(count):
                            shifted[r] += given[r]
                    if D == 2 and slope and hit and chunks == 1 and not flags[2]:
                        # Both gradients of a small image in one pass: the neighbours are looked up once.
                        picture = image[U(((b % B_image) * C + c) * N) :]
                        slopes = grad_coordinates[U(b * D * M + at) :]
                        _both_2d(picture, near, weight, given, slopes, grad_image[U((b * C + c) * N) :], M, count)
                        continue
                    if slope and not flags[2]:
                        picture = image[U(((b % B_image) * C + c) * N) :]
                        slopes = grad_coordinates[U(b * D * M + at) :]
                        if D == 2:
                            _slopes_2d(picture, near, weight, given, slopes, M, count)
                        else:
                            _slopes_3d(picture, near, weight, given, slopes, M, count)
                    if hit:
                        result = grad_image[U((b * C + c) * N) :]
                        if D == 2:
                            _scatter_2d(near, weight, given, result, count, low * shape[2], high * shape[2])
                        else:
                            plane = shape[1] * shape[2]
                            _scatter_3d(near, weight, given, result, count, low * plane, high * plane)


@inner
def _slopes_2d(image, near, weight, grad, slopes, M, count):
    for r in range(count):
        y0, x0, wy0, wx0 = near[r], near[4 * L + r], weight[r], weight[8 * L + r]
        if (y0 | x0) < 0 or wy0 * wx0 != wy0 * wx0:
            continue
        y1, x1, wy1, wx1 = near[L + r], near[5 * L + r], weight[L + r], weight[9 * L + r]
        dy0, dy1, dx0, dx1 = weight[2 * L + r], weight[3 * L + r], weight[10 * L + r], weight[11 * L + r]
        a, b, c, d = image[U(y0 + x0)], image[U(y0 + x1)], image[U(y1 + x0)], image[U(y1 + x1)]
        # An axis without a slope gives nothing, even beside a NaN.
        if dy0 != dy1:
            slopes[r] += grad[r] * (dy0 * (wx0 * a + wx1 * b) + dy1 * (wx0 * c + wx1 * d))
        if dx0 != dx1:
            slopes[U(M + r)] += grad[r] * (wy0 * (dx0 * a + dx1 * b) + wy1 * (dx0 * c + dx1 * d))


@inner
def _both_2d(image, near, weight, grad, slopes, result, M, count):
    for r in range(count):
        y0, x0, wy0, wx0 = near[r], near[4 * L + r], weight[r], weight[8 * L + r]
        if (y0 | x0) < 0 or wy0 * wx0 != wy0 * wx0:
            continue
        y1, x1, wy1, wx1 = near[L + r], near[5 * L + r], weight[L + r], weight[9 * L + r]
        dy1, dx1, dy0, dx0 = weight[3 * L + r], weight[11 * L + r], weight[2 * L + r], weight[10 * L + r]
        i, j, k, m = U(y0 + x0), U(y0 + x1), U(y1 + x0), U(y1 + x1)
        a, b, c, d, g = image[i], image[j], image[k], image[m], grad[r]
        g0, g1 = g * wx0, g * wx1
        # An axis without a slope gives nothing, even beside a NaN.
        if dy0 != dy1:
            slopes[r] += dy0 * (g0 * a + g1 * b) + dy1 * (g0 * c + g1 * d)
        if dx0 != dx1:
            slopes[U(M + r)] += g * (wy0 * (dx0 * a + dx1 * b) + wy1 * (dx0 * c + dx1 * d))
        result[i] += wy0 * g0
        result[j] += wy0 * g1
        result[k] += wy1 * g0
        result[m] += wy1 * g1


@inner
def _slopes_3d(image, near, weight, grad, slopes, M, count):
    for r in range(count):
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        wz0, wy0, wx0 = weight[r], weight[4 * L + r], weight[8 * L + r]
        if (z0 | y0 | x0) < 0 or wz0 * wy0 * wx0 != wz0 * wy0 * wx0:
            continue
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        wz1, wy1, wx1 = weight[L + r], weight[5 * L + r], weight[9 * L + r]
        dz0, dy0, dx0 = weight[2 * L + r], weight[6 * L + r], weight[10 * L + r]
        dz1, dy1, dx1 = weight[3 * L + r], weight[7 * L + r], weight[11 * L + r]
        a, b, c, d = z0 + y0, z0 + y1, z1 + y0, z1 + y1
        a0, b0, c0, d0 = image[U(a + x0)], image[U(b + x0)], image[U(c + x0)], image[U(d + x0)]
        a1, b1, c1, d1 = image[U(a + x1)], image[U(b + x1)], image[U(c + x1)], image[U(d + x1)]
        sa, sb, sc, sd = wx0 * a0 + wx1 * a1, wx0 * b0 + wx1 * b1, wx0 * c0 + wx1 * c1, wx0 * d0 + wx1 * d1
        # An axis without a slope gives nothing, even beside a NaN.
        if dz0 != dz1:
            slopes[r] += grad[r] * (dz0 * (wy0 * sa + wy1 * sb) + dz1 * (wy0 * sc + wy1 * sd))
        if dy0 != dy1:
            slopes[U(M + r)] += grad[r] * (wz0 * (dy0 * sa + dy1 * sb) + wz1 * (dy0 * sc + dy1 * sd))
        if dx0 != dx1:
            sa, sb, sc, sd = dx0 * a0 + dx1 * a1, dx0 * b0 + dx1 * b1, dx0 * c0 + dx1 * c1, dx0 * d0 + dx1 * d1
            slopes[U(2 * M + r)] += grad[r] * (wz0 * (wy0 * sa + wy1 * sb) + wz1 * (wy0 * sc + wy1 * sd))


@inner
def _scatter_2d(near, weight, grad, result, count, low, high):
    for r in range(count):
        y0, x0, wy0, wx0 = near[r], near[4 * L + r], weight[r], weight[8 * L + r]
        y1, x1, wy1, wx1 = near[L + r], near[5 * L + r], weight[L + r], weight[9 * L + r]
        if (y0 | x0) < 0 or wy0 * wx0 != wy0 * wx0:
            continue
        g0, g1 = grad[r] * wx0, grad[r] * wx1
        if low <= y0 < high:
            result[U(y0 + x0)] += wy0 * g0
            result[U(y0 + x1)] += wy0 * g1
        if low <= y1 < high:
            result[U(y1 + x0)] += wy1 * g0
            result[U(y1 + x1)] += wy1 * g1


@inner
def _scatter_3d(near, weight, grad, result, count, low, high):
    for r in range(count):
        z0, y0, x0 = near[r], near[2 * L + r], near[4 * L + r]
        wz0, wy0, wx0 = weight[r], weight[4 * L + r], weight[8 * L + r]
        z1, y1, x1 = near[L + r], near[3 * L + r], near[5 * L + r]
        wz1, wy1, wx1 = weight[L + r], weight[5 * L + r], weight[9 * L + r]
        if (z0 | y0 | x0) < 0 or wz0 * wy0 * wx0 != wz0 * wy0 * wx0:
            continue
        g0, g1 = grad[r] * wx0, grad[r] * wx1
        if low <= z0 < high:
            a, b, wa, wb = z0 + y0, z0 + y1, wz0 * wy0, wz0 * wy1
            result[U(a + x0)] += wa * g0
            result[U(a + x1)] += wa * g1
            result[U(b + x0)] += wb * g0
            result[U(b + x1)] += wb * g1
        if low <= z1 < high:
            a, b, wa, wb = z1 + y0, z1 + y1, wz1 * wy0, wz1 * wy1
            result[U(a + x0)] += wa * g0
            result[U(a + x1)] += wa * g1
            result[U(b + x0)] += wb * g0
            result[U(b + x1)] += wb * g1
