"""Sums over cubic windows that slide, and what the local correlation makes of them.

A lattice is (Z, Y, X), a 2D one (Y, 1, X). A task takes a slab of planes: sums over the window's extent along z
are kept for a plane and move on with it, likewise along y for a row and along x for a voxel, so that the
time does not depend on the window. All sums are float64.

No loop over voxels names an array that may be empty: the compiler takes the fast version of a loop only where the
arrays it writes and reads do not overlap as if each were of full length, and an empty one lies anywhere.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
from numba import prange

from whence.kernels.cpu.launch import inner, outer

F = np.float32
U = np.uintp


@inner
def _products(sums, a, b, weight, start, size, shift_a, shift_b, sign):
    """Add a plane's a, b, a^2, b^2 and ab, and with a weight the weight itself."""
    if weight.size > 0:
        for i in range(size):
            x, y = np.float64(a[U(start + i)]) - shift_a, np.float64(b[U(start + i)]) - shift_b
            w = sign * weight[U(start + i)]
            sums[U(5 * size + i)] += w
            _add_products(sums, x, y, w, i, size)
    else:
        for i in range(size):
            x, y = np.float64(a[U(start + i)]) - shift_a, np.float64(b[U(start + i)]) - shift_b
            _add_products(sums, x, y, sign, i, size)


@inner
def _add_products(sums, x, y, w, i, size):
    sums[i] += w * x
    sums[U(size + i)] += w * y
    sums[U(2 * size + i)] += w * x * x
    sums[U(3 * size + i)] += w * y * y
    sums[U(4 * size + i)] += w * x * y


@inner
def _fields(sums, fields, K, N, start, size, sign):
    for k in range(K):
        for i in range(size):
            sums[U(k * size + i)] += sign * fields[U(k * N + start + i)]


@inner
def _rows(sums, rows, K, y, Y, X, radius):
    """Move the sums of a row, (K, X), on to row y."""
    if y == 0:
        rows[: K * X] = 0
        for j in range(min(radius, Y)):
            for k in range(K):
                for x in range(X):
                    rows[U(k * X + x)] += sums[U((k * Y + j) * X + x)]
    if y + radius < Y:
        for k in range(K):
            for x in range(X):
                rows[U(k * X + x)] += sums[U((k * Y + y + radius) * X + x)]
    if y - radius > 0:
        for k in range(K):
            for x in range(X):
                rows[U(k * X + x)] -= sums[U((k * Y + y - radius - 1) * X + x)]


@inner
def _boxes(rows, boxes, K, X, radius):
    """Sums over the window of each voxel of a row, (K, X)."""
    for k in range(K):
        total = 0.0
        for x in range(min(radius, X)):
            total += rows[U(k * X + x)]
        head, tail = max(min(X - radius, X), 0), min(radius + 1, X)
        for x in range(X):
            if x < head:
                total += rows[U(k * X + x + radius)]
            if x >= tail:
                total -= rows[U(k * X + x - radius - 1)]
            boxes[U(k * X + x)] = total


@inner
def _extent(i, n, radius):
    """How many voxels of an axis of n lie in the window of voxel i."""
    return min(i + radius, n - 1) - max(i - radius, 0) + 1


@inner
def _moments(boxes, counts, x, X, epsilon):
    """1/n, means, covariance, variances and 1 / (their product + epsilon^2) of a voxel's window."""
    # A window with no sample has no correlation; rounding leaves a trace of others' weights.
    n = counts[x]
    inverse = 1 / n if n > 1e-6 else 0.0
    A, B = boxes[x] * inverse, boxes[U(X + x)] * inverse
    raw_a, raw_b = boxes[U(2 * X + x)] * inverse - A * A, boxes[U(3 * X + x)] * inverse - B * B
    covariance = boxes[U(4 * X + x)] * inverse - A * B
    over = 1 / (max(raw_a, 0.0) * max(raw_b, 0.0) + epsilon * epsilon)
    return inverse, A, B, covariance, raw_a, raw_b, over


@inner
def _store(fields, at, N, K, g, A, B, covariance, raw_a, raw_b, over):
    """The fields that gradients are made of, at a voxel whose correlation weighs g."""
    c1 = 2 * g * covariance * over
    both = g * covariance * covariance * over * over
    c2, c3 = -both * max(raw_b, 0.0) if raw_a >= 0 else 0.0, -both * max(raw_a, 0.0) if raw_b >= 0 else 0.0
    fields[U(at)] = F(c1)
    fields[U(at + N)] = F(c2)
    fields[U(at + 2 * N)] = F(c1 * B + 2 * c2 * A)
    if K == 5:
        fields[U(at + 3 * N)] = F(c3)
        fields[U(at + 4 * N)] = F(c1 * A + 2 * c3 * B)


@outer
def correlate(a, b, weight, shifts, grad, result, fields, batch, channels, Z, Y, X, radius, epsilon, chunks, K):
    """Squared correlations, and the fields, one after the other, that gradients are made of; an empty one is left out.

    ``grad`` weights the fields where there is no result; beside a result it is 1 everywhere. Of the five fields
    the gradient of the first image needs three.

    With n samples in the window, means A and B, and c1, c2, c3 the gradient times the derivatives by the
    covariance and the two variances, the fields are c1/n, c2/n, (c1 B + 2 c2 A)/n, c3/n, (c1 A + 2 c3 B)/n.
    """
    N, size = Z * Y * X, Y * X
    features = 6 if weight.size > 0 else 5
    for unit in prange(batch * channels * chunks):
        image, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        a_i, b_i = a[U(image * N) :], b[U(image * N) :]
        w_i = weight[U(image // channels * N) : U((image // channels + 1) * N if features == 6 else 0)]
        sums, rows = np.zeros(features * size), np.zeros(features * X)
        boxes, counts = np.zeros(features * X), np.zeros(X)
        sa, sb = shifts[U(2 * image)], shifts[U(2 * image + 1)]
        for z in range(max(low - radius, 0), min(low + radius, Z)):
            _products(sums, a_i, b_i, w_i, z * size, size, sa, sb, 1.0)
        for z in range(low, high):
            if z + radius < Z:
                _products(sums, a_i, b_i, w_i, (z + radius) * size, size, sa, sb, 1.0)
            if z > low and z - radius > 0:
                _products(sums, a_i, b_i, w_i, (z - radius - 1) * size, size, sa, sb, -1.0)
            for y in range(Y):
                _rows(sums, rows, features, y, Y, X, radius)
                _boxes(rows, boxes, features, X, radius)
                area = _extent(z, Z, radius) * _extent(y, Y, radius)
                for x in range(X):
                    counts[x] = np.float64(area * _extent(x, X, radius))
                if features == 6:
                    counts[:] = boxes[5 * X :]
                o = image * N + (z * Y + y) * X
                at = image * K * N + (z * Y + y) * X
                if fields.size == 0:
                    for x in range(X):
                        _, A, B, covariance, raw_a, raw_b, over = _moments(boxes, counts, x, X, epsilon)
                        result[U(o + x)] = F(covariance * covariance * over)
                elif result.size == 0:
                    for x in range(X):
                        inverse, A, B, covariance, raw_a, raw_b, over = _moments(boxes, counts, x, X, epsilon)
                        g = inverse * grad[U(o + x)]
                        _store(fields, at + x, N, K, g, A, B, covariance, raw_a, raw_b, over)
                else:
                    for x in range(X):
                        inverse, A, B, covariance, raw_a, raw_b, over = _moments(boxes, counts, x, X, epsilon)
                        result[U(o + x)] = F(covariance * covariance * over)
                        _store(fields, at + x, N, K, inverse, A, B, covariance, raw_a, raw_b, over)


@outer
def gather(a, b, weight, shifts, fields, grad_a, grad_b, batch, channels, Z, Y, X, radius, chunks, K, share):
    """Gradients from the fields, times ``share``: each voxel takes from all windows that it lies in."""
    N, size = Z * Y * X, Y * X
    for unit in prange(batch * channels * chunks):
        image, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        part = fields[U(image * K * N) :]
        sums, rows, boxes, shares = np.zeros(K * size), np.zeros(K * X), np.zeros(K * X), np.zeros(X)
        sa, sb = shifts[U(2 * image)], shifts[U(2 * image + 1)]
        for z in range(max(low - radius, 0), min(low + radius, Z)):
            _fields(sums, part, K, N, z * size, size, 1.0)
        for z in range(low, high):
            if z + radius < Z:
                _fields(sums, part, K, N, (z + radius) * size, size, 1.0)
            if z > low and z - radius > 0:
                _fields(sums, part, K, N, (z - radius - 1) * size, size, -1.0)
            for y in range(Y):
                _rows(sums, rows, K, y, Y, X, radius)
                _boxes(rows, boxes, K, X, radius)
                line = (z * Y + y) * X
                o = image * N + line
                shares[:] = share
                if weight.size > 0:
                    for x in range(X):
                        shares[x] *= np.float64(weight[U(image // channels * N + line + x)])
                for x in range(X):
                    p, q = np.float64(a[U(o + x)]) - sa, np.float64(b[U(o + x)]) - sb
                    value = q * boxes[x] + 2 * p * boxes[U(X + x)] - boxes[U(2 * X + x)]
                    grad_a[U(o + x)] = F(shares[x] * value)
                if K == 5:
                    for x in range(X):
                        p, q = np.float64(a[U(o + x)]) - sa, np.float64(b[U(o + x)]) - sb
                        value = p * boxes[x] + 2 * q * boxes[U(3 * X + x)] - boxes[U(4 * X + x)]
                        grad_b[U(o + x)] = F(shares[x] * value)
