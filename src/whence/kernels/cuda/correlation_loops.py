"""What the local correlation makes of sums over sliding windows.

A lattice is (Z, Y, X) of N voxels, a 2D one (Y, 1, X). Features are sums of a, b, a^2, b^2 and ab, and with a mask of
the mask itself, of which a program writes or reads ``FEATURES`` volumes that lie one after the other. Intensities
are taken less a ``shift``, which the correlation does not see but the precision of its sums does.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import triton
import triton.language as tl

from whence.kernels.cuda.boxes import within

SIZES = ["C", "Z", "Y", "X", "radius", "radius_y", "chunk", "blocks"]


@triton.jit
def _products(a, b, weight, y, x, Y, X, radius, shift_a, shift_b, MASKED: tl.constexpr, LANES: tl.constexpr):
    """Six sums over the windows along a row, in float64; none beyond the ends."""
    s0 = tl.zeros((LANES,), tl.float64)
    s1 = tl.zeros((LANES,), tl.float64)
    s2 = tl.zeros((LANES,), tl.float64)
    s3 = tl.zeros((LANES,), tl.float64)
    s4 = tl.zeros((LANES,), tl.float64)
    s5 = tl.zeros((LANES,), tl.float64)
    there = x < within(y, Y, X)
    for k in range(-radius, radius + 1):
        j = x + k
        live = there & (j >= 0) & (j < X)
        p = tl.load(a + y * X + j, mask=live, other=shift_a).to(tl.float64) - shift_a
        q = tl.load(b + y * X + j, mask=live, other=shift_b).to(tl.float64) - shift_b
        wp, wq = p, q
        if MASKED:
            w = tl.load(weight + y * X + j, mask=live, other=0.0)
            wp, wq = w * p, w * q
            s5 += w
        s0 += wp
        s1 += wq
        s2 += wp * p
        s3 += wq * q
        s4 += wp * q
    return s0, s1, s2, s3, s4, s5


@triton.jit(do_not_specialize=SIZES)
def sheets(
    a, b, weight, shifts, sums, C, Z, Y, X, N, radius, radius_y, chunk, blocks,
    MASKED: tl.constexpr, FEATURES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sums over x and y of the features."""
    unit = tl.program_id(0)
    x = unit % blocks * LANES + tl.arange(0, LANES)
    mask = x < X
    chunks = tl.cdiv(Y, chunk)
    low = unit // blocks % chunks * chunk
    high = tl.minimum(low + chunk, Y)
    z = unit // blocks // chunks % Z
    image = (unit // blocks // chunks // Z).to(tl.int64)
    a += image * N + z * Y * X
    b += image * N + z * Y * X
    if MASKED:
        weight += image // C * N + z * Y * X
    sa, sb = tl.load(shifts + 2 * image), tl.load(shifts + 2 * image + 1)
    place = sums + image * FEATURES * N + z * Y * X + x
    t0 = tl.zeros((LANES,), tl.float64)
    t1 = tl.zeros((LANES,), tl.float64)
    t2 = tl.zeros((LANES,), tl.float64)
    t3 = tl.zeros((LANES,), tl.float64)
    t4 = tl.zeros((LANES,), tl.float64)
    t5 = tl.zeros((LANES,), tl.float64)
    for y in range(low - radius_y, low + radius_y):
        s0, s1, s2, s3, s4, s5 = _products(a, b, weight, y, x, Y, X, radius, sa, sb, MASKED, LANES)
        t0, t1, t2, t3, t4, t5 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4, t5 + s5
    for y in range(low, high):
        s0, s1, s2, s3, s4, s5 = _products(a, b, weight, y + radius_y, x, Y, X, radius, sa, sb, MASKED, LANES)
        t0, t1, t2, t3, t4, t5 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4, t5 + s5
        at = place + y * X
        tl.store(at, t0, mask=mask)
        at += N
        tl.store(at, t1, mask=mask)
        at += N
        tl.store(at, t2, mask=mask)
        at += N
        tl.store(at, t3, mask=mask)
        at += N
        tl.store(at, t4, mask=mask)
        if MASKED:
            at += N
            tl.store(at, t5, mask=mask)
        s0, s1, s2, s3, s4, s5 = _products(a, b, weight, y - radius_y, x, Y, X, radius, sa, sb, MASKED, LANES)
        t0, t1, t2, t3, t4, t5 = t0 - s0, t1 - s1, t2 - s2, t3 - s3, t4 - s4, t5 - s5


@triton.jit
def _read(volumes, z, i, Z, lanes, N, FEATURES: tl.constexpr):
    """A plane's voxels of up to six volumes, in float64; none beyond the ends."""
    at, mask = volumes + z * lanes + i, i < within(z, Z, lanes)
    v0 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    at += N
    v1 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    at += N
    v2 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    v3, v4, v5 = v2, v2, v2
    if FEATURES >= 5:
        at += N
        v3 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
        at += N
        v4 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    if FEATURES == 6:
        at += N
        v5 = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    return v0, v1, v2, v3, v4, v5


@triton.jit
def _extent(i, n, radius):
    """How many voxels of an axis of n lie in the window of voxel i."""
    return tl.minimum(i + radius, n - 1) - tl.maximum(i - radius, 0) + 1


@triton.jit(do_not_specialize=SIZES)
def correlate(
    sums, grad, result, Z, Y, X, N, radius, floor, chunk, blocks,
    FEATURES: tl.constexpr, FIELDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Squared correlations (``FIELDS`` 1), or the three or five fields that gradients are made of.

    With n samples in the window, means A and B, and c1, c2, c3 the gradient times the derivatives by the
    covariance and the two variances, the fields are c1/n, c2/n, (c1 B + 2 c2 A)/n, c3/n, (c1 A + 2 c3 B)/n.
    """
    unit = tl.program_id(0)
    lanes = Y * X
    i = unit % blocks * LANES + tl.arange(0, LANES)
    mask = i < lanes
    chunks = tl.cdiv(Z, chunk)
    low = unit // blocks % chunks * chunk
    high = tl.minimum(low + chunk, Z)
    image = (unit // blocks // chunks).to(tl.int64)
    volumes, place = sums + image * FEATURES * N, result + image * FIELDS * N + i
    grad += image * N + i
    area = (_extent(i // X, Y, radius) * _extent(i % X, X, radius)).to(tl.float64)
    t0 = tl.zeros((LANES,), tl.float64)
    t1 = tl.zeros((LANES,), tl.float64)
    t2 = tl.zeros((LANES,), tl.float64)
    t3 = tl.zeros((LANES,), tl.float64)
    t4 = tl.zeros((LANES,), tl.float64)
    t5 = tl.zeros((LANES,), tl.float64)
    for z in range(low - radius, low + radius):
        s0, s1, s2, s3, s4, s5 = _read(volumes, z, i, Z, lanes, N, FEATURES)
        t0, t1, t2, t3, t4, t5 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4, t5 + s5
    for z in range(low, high):
        s0, s1, s2, s3, s4, s5 = _read(volumes, z + radius, i, Z, lanes, N, FEATURES)
        t0, t1, t2, t3, t4, t5 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4, t5 + s5
        n = area * _extent(z, Z, radius)
        if FEATURES == 6:
            n = t5
        # A window with no sample has no correlation; rounding leaves a trace of others' weights.
        inverse = tl.where(n > 1e-6, 1 / tl.where(n > 1e-6, n, 1.0), 0.0)
        A, B = t0 * inverse, t1 * inverse
        raw_a, raw_b, covariance = t2 * inverse - A * A, t3 * inverse - B * B, t4 * inverse - A * B
        va, vb = tl.where(raw_a > 0, raw_a, 0.0), tl.where(raw_b > 0, raw_b, 0.0)
        over = 1 / (va * vb + floor)
        at = place + z * lanes
        if FIELDS == 1:
            tl.store(at, (covariance * covariance * over).to(tl.float32), mask=mask)
        else:
            g = tl.load(grad + z * lanes, mask=mask, other=0.0) * inverse
            c1 = 2 * g * covariance * over
            both = g * covariance * covariance * over * over
            c2 = tl.where(raw_a >= 0, -both * vb, 0.0)
            tl.store(at, c1.to(tl.float32), mask=mask)
            at += N
            tl.store(at, c2.to(tl.float32), mask=mask)
            at += N
            tl.store(at, (c1 * B + 2 * c2 * A).to(tl.float32), mask=mask)
            if FIELDS == 5:
                c3 = tl.where(raw_b >= 0, -both * va, 0.0)
                at += N
                tl.store(at, c3.to(tl.float32), mask=mask)
                at += N
                tl.store(at, (c1 * A + 2 * c3 * B).to(tl.float32), mask=mask)
        s0, s1, s2, s3, s4, s5 = _read(volumes, z - radius, i, Z, lanes, N, FEATURES)
        t0, t1, t2, t3, t4, t5 = t0 - s0, t1 - s1, t2 - s2, t3 - s3, t4 - s4, t5 - s5


@triton.jit(do_not_specialize=SIZES)
def gather(
    sums, a, b, weight, shifts, grad_a, grad_b, C, Z, Y, X, N, radius, chunk, blocks,
    MASKED: tl.constexpr, FIELDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Gradients from the fields summed over x and y: each voxel takes from all windows that it lies in."""
    unit = tl.program_id(0)
    lanes = Y * X
    i = unit % blocks * LANES + tl.arange(0, LANES)
    mask = i < lanes
    chunks = tl.cdiv(Z, chunk)
    low = unit // blocks % chunks * chunk
    high = tl.minimum(low + chunk, Z)
    image = (unit // blocks // chunks).to(tl.int64)
    volumes, offset = sums + image * FIELDS * N, image * N + i
    shift_a, shift_b = tl.load(shifts + 2 * image), tl.load(shifts + 2 * image + 1)
    t0 = tl.zeros((LANES,), tl.float64)
    t1 = tl.zeros((LANES,), tl.float64)
    t2 = tl.zeros((LANES,), tl.float64)
    t3 = tl.zeros((LANES,), tl.float64)
    t4 = tl.zeros((LANES,), tl.float64)
    for z in range(low - radius, low + radius):
        s0, s1, s2, s3, s4, _ = _read(volumes, z, i, Z, lanes, N, FIELDS)
        t0, t1, t2, t3, t4 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4
    for z in range(low, high):
        s0, s1, s2, s3, s4, _ = _read(volumes, z + radius, i, Z, lanes, N, FIELDS)
        t0, t1, t2, t3, t4 = t0 + s0, t1 + s1, t2 + s2, t3 + s3, t4 + s4
        at = offset + z * lanes
        p = tl.load(a + at, mask=mask, other=0.0).to(tl.float64) - shift_a
        q = tl.load(b + at, mask=mask, other=0.0).to(tl.float64) - shift_b
        for_a, for_b = q * t0 + 2 * p * t1 - t2, p * t0 + 2 * q * t3 - t4
        if MASKED:
            w = tl.load(weight + image // C * N + i + z * lanes, mask=mask, other=0.0)
            for_a, for_b = w * for_a, w * for_b
        tl.store(grad_a + at, for_a.to(tl.float32), mask=mask)
        if FIELDS == 5:
            tl.store(grad_b + at, for_b.to(tl.float32), mask=mask)
        s0, s1, s2, s3, s4, _ = _read(volumes, z - radius, i, Z, lanes, N, FIELDS)
        t0, t1, t2, t3, t4 = t0 - s0, t1 - s1, t2 - s2, t3 - s3, t4 - s4
