"""The steps of MIND-SSC: squared differences of two shifted images, box means by sliding sums, the descriptor.

A lattice is (Z, Y, X), a 2D one (Y, 1, X); ``pairs`` holds six offsets a pair of neighbours. Distances are
(B, K, Z, Y, X), worked on in place. All sums are float64.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
from numba import prange

from whence.kernels.cpu.launch import inner, outer

F = np.float32
U = np.uintp
ZERO = F(0)
# Lines that are smoothed together.
W = 64


@inner
def _clamp(i, n):
    return 0 if i < 0 else (n - 1 if i >= n else i)


@outer
def differences(image, distances, pairs, batch, K, Z, Y, X):
    N = Z * Y * X
    for unit in prange(batch * K * Z):
        b, k, z = unit // (K * Z), unit // Z % K, unit % Z
        o = pairs[6 * k : 6 * k + 6]
        for y in range(Y):
            p = b * N + (_clamp(z + o[0], Z) * Y + _clamp(y + o[1], Y)) * X
            q = b * N + (_clamp(z + o[3], Z) * Y + _clamp(y + o[4], Y)) * X
            line = ((b * K + k) * Z + z) * Y * X + y * X
            for x in range(X):
                d = image[U(p + _clamp(x + o[2], X))] - image[U(q + _clamp(x + o[5], X))]
                distances[U(line + x)] = d * d


@outer
def box(volume, outside, n, inside, radius, adjoint):
    """Mean over a window along the middle axis of (outside, n, inside), ends repeated; or its adjoint."""
    blocks = (inside + W - 1) // W
    scale = 1.0 / (2 * radius + 1)
    for unit in prange(outside * blocks):
        start = unit // blocks * n * inside + unit % blocks * W
        width = min(W, inside - unit % blocks * W)
        lines, total = np.empty(n * W, F), np.zeros(W)
        for i in range(n):
            for w in range(width):
                lines[U(i * W + w)] = volume[U(start + i * inside + w)]
        if adjoint:
            _spread(volume, lines, total, start, width, n, inside, radius, scale)
        else:
            _mean(volume, lines, total, start, width, n, inside, radius, scale)


@inner
def _mean(volume, lines, total, start, width, n, inside, radius, scale):
    for j in range(-radius, radius + 1):
        for w in range(width):
            total[w] += lines[U(_clamp(j, n) * W + w)]
    for i in range(n):
        come, go = _clamp(i + radius + 1, n) * W, _clamp(i - radius, n) * W
        for w in range(width):
            volume[U(start + i * inside + w)] = F(total[w] * scale)
            total[w] += np.float64(lines[U(come + w)]) - lines[U(go + w)]


@inner
def _spread(volume, lines, total, start, width, n, inside, radius, scale):
    """What the windows around each place, those beyond the ends included, give back to the voxel that stood there."""
    for i in range(n):
        for w in range(width):
            volume[U(start + i * inside + w)] = ZERO
    for t in range(-radius, n + radius):
        place = start + _clamp(t, n) * inside
        if t + radius < n:
            for w in range(width):
                total[w] += lines[U((t + radius) * W + w)]
        if t - radius > 0:
            for w in range(width):
                total[w] -= lines[U((t - radius - 1) * W + w)]
        for w in range(width):
            volume[U(place + w)] += F(total[w] * scale)


@outer
def excess(distances, variance, sums, batch, K, Z, size):
    """Distances above their least, their mean at each voxel, and its sum over each plane."""
    N = Z * size
    for unit in prange(batch * Z):
        b, z = unit // Z, unit % Z
        total = 0.0
        for i in range(z * size, (z + 1) * size):
            least = distances[U(b * K * N + i)]
            for k in range(1, K):
                least = min(least, distances[U((b * K + k) * N + i)])
            mean = ZERO
            for k in range(K):
                at = U((b * K + k) * N + i)
                distances[at] -= least
                mean += distances[at]
            mean = mean / F(K)
            variance[U(b * N + i)] = mean
            total += mean
        sums[unit] = total


@inner
def _bounded(value, low, high):
    return max(min(max(value, low), high), F(1e-12))


@outer
def exponents(distances, variance, bounds, batch, K, Z, size):
    """-distance / variance in place."""
    N = Z * size
    for unit in prange(batch * K * Z):
        b, k, z = unit // (K * Z), unit // Z % K, unit % Z
        low, high = bounds[2 * b], bounds[2 * b + 1]
        for i in range(z * size, (z + 1) * size):
            scale = _bounded(variance[U(b * N + i)], low, high)
            distances[U((b * K + k) * N + i)] /= -scale


@outer
def slopes(descriptor, grad, entropy, variance, bounds, batch, K, Z, size):
    """Gradient by the distances, in place of ``entropy`` (-y log y of the descriptor y)."""
    N = Z * size
    for unit in prange(batch * Z):
        b, z = unit // Z, unit % Z
        low, high = bounds[2 * b], bounds[2 * b + 1]
        for i in range(z * size, (z + 1) * size):
            raw = variance[U(b * N + i)]
            scale = _bounded(raw, low, high)
            moved, nearest, best = ZERO, 0, F(-1)
            for k in range(K):
                at = U((b * K + k) * N + i)
                moved += grad[at] * entropy[at]
                if descriptor[at] > best:
                    nearest, best = k, descriptor[at]
            free = low <= raw <= high and raw >= F(1e-12)
            shared = moved / (F(K) * scale) if free else ZERO
            total = ZERO
            for k in range(K):
                at = U((b * K + k) * N + i)
                value = shared - grad[at] * descriptor[at] / scale
                entropy[at] = value
                total += value
            entropy[U((b * K + nearest) * N + i)] -= total


@outer
def collect(image, slope, grad, pairs, batch, K, Z, Y, X, reach, chunks):
    """Gradient by the image from that by the squared differences; a slab belongs to one task."""
    N = Z * Y * X
    for unit in prange(batch * chunks):
        b, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        for k in range(K):
            o = pairs[6 * k : 6 * k + 6]
            for z in range(max(low - reach, 0), min(high + reach, Z)):
                zp, zq = _clamp(z + o[0], Z), _clamp(z + o[3], Z)
                has_p, has_q = low <= zp < high, low <= zq < high
                if not (has_p or has_q):
                    continue
                for y in range(Y):
                    p = b * N + (zp * Y + _clamp(y + o[1], Y)) * X
                    q = b * N + (zq * Y + _clamp(y + o[4], Y)) * X
                    line = ((b * K + k) * Z + z) * Y * X + y * X
                    for x in range(X):
                        i, j = p + _clamp(x + o[2], X), q + _clamp(x + o[5], X)
                        g = F(2) * (image[U(i)] - image[U(j)]) * slope[U(line + x)]
                        if has_p:
                            grad[U(i)] += g
                        if has_q:
                            grad[U(j)] -= g
