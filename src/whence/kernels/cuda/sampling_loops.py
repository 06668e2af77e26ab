"""Linear and nearest sampling, forward and backward, in 2D and 3D.

Arrays are C-ordered: image (B, C, *spatial), coordinates (B, D, *out), values (B, C, *out); a ``_step`` is what a
sample of the batch is long in memory, 0 where one serves all. Lattices are three sizes, a 2D one (rows, 1, columns),
and N and M their voxels. ``RELATIVE`` coordinates are displacements from the output voxel; ``ADD`` adds them to the
values (composition). A program takes a block of output voxels of one sample and goes through the channels.
"""

# ruff: noqa: N803
from __future__ import annotations

import triton
import triton.language as tl

SIZES = ["C", "Z", "Y", "X", "Q", "R", "blocks"]


@triton.jit
def _near(v, n, ZEROS: tl.constexpr, NEAREST: tl.constexpr):
    """Both neighbours of a coordinate on an axis of n voxels, their weights, and whether there is anything to read.

    A neighbour that is missing weighs nothing and is replaced by the other, so that a NaN elsewhere cannot leak.
    For an unknown coordinate the first weight is NaN, and there is nothing to read.
    """
    last = (n - 1).to(tl.float32)
    if NEAREST:
        low = tl.floor(v)
        rest = v - low
        # Halves go to the even voxel, as torch rounds.
        odd = low != 2 * tl.floor(low * 0.5)
        v = tl.where((rest > 0.5) | ((rest == 0.5) & odd), low + 1, low)
        s = tl.where(v > 0, v, 0.0)
        first = tl.where(s < last, s, last).to(tl.int32)
        there = v == v
        if ZEROS:
            there = (v >= 0) & (v <= last)
        return first, first, tl.where(v == v, 1.0, v), tl.zeros_like(v), there
    if ZEROS:
        s = tl.where(v > -1, v + 1, 0.0)
        s = tl.where(s < last + 2, s, last + 2)
        upper = s.to(tl.int32)
        t = s - upper.to(tl.float32)
        there = (v > -1) & (v < last + 1)
        w0 = tl.where(v == v, tl.where(upper > 0, 1 - t, 0.0), v)
        w1 = tl.where(upper < n, t, 0.0)
        return tl.maximum(upper - 1, 0), tl.minimum(upper, n - 1), w0, w1, there
    s = tl.where(v > 0, v, 0.0)
    s = tl.where(s < last, s, last)
    first = s.to(tl.int32)
    t = s - first.to(tl.float32)
    return first, tl.minimum(first + 1, n - 1), tl.where(v == v, 1 - t, v), t, v == v


@triton.jit
def _slopes(v, n, ZEROS: tl.constexpr):
    """Derivatives of the two weights: none at and beyond a border that repeats, nor at a lone voxel's centre."""
    last = (n - 1).to(tl.float32)
    if ZEROS:
        slope = tl.where((n > 1) | (v != 0), 1.0, 0.0)
        return tl.where(v < 0, 0.0, -slope), tl.where(v >= last, 0.0, slope)
    slope = tl.where((v > 0) & (v < last), 1.0, 0.0)
    return -slope, slope


@triton.jit
def _place(coordinates, m, M, Q, R, inside, RELATIVE: tl.constexpr, DIMS: tl.constexpr):
    """Coordinates of a block of output voxels along the three axes; 0 along the middle one in 2D."""
    v_z = tl.load(coordinates + m, mask=inside, other=0.0)
    v_x = tl.load(coordinates + (DIMS - 1) * M + m, mask=inside, other=0.0)
    v_y = v_z * 0
    if DIMS == 3:
        v_y = tl.load(coordinates + M + m, mask=inside, other=0.0)
    if RELATIVE:
        row = m // R
        v_x += (m - row * R).to(tl.float32)
        v_z += (row // Q).to(tl.float32)
        if DIMS == 3:
            v_y += (row % Q).to(tl.float32)
    return v_z, v_y, v_x


@triton.jit(do_not_specialize=SIZES)
def forward(
    image, coordinates, values, image_step, coordinates_step, C, Z, Y, X, N, Q, R, M, blocks,
    DIMS: tl.constexpr, RELATIVE: tl.constexpr, ZEROS: tl.constexpr, NEAREST: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Values at coordinates."""
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    m = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    where = coordinates + b * coordinates_step
    v_z, v_y, v_x = _place(where, m, M, Q, R, inside, RELATIVE, DIMS)
    z0, z1, wz0, wz1, there = _near(v_z, Z, ZEROS, NEAREST)
    x0, x1, wx0, wx1, there_x = _near(v_x, X, ZEROS, NEAREST)
    there &= there_x
    a, c = z0 * (Y * X), z1 * (Y * X)
    wa, wc = wz0, wz1
    if DIMS == 3:
        y0, y1, wy0, wy1, there_y = _near(v_y, Y, ZEROS, NEAREST)
        there &= there_y
        b_, d = a + y1 * X, c + y1 * X
        a, c = a + y0 * X, c + y0 * X
        wb, wd = wz0 * wy1, wz1 * wy1
        wa, wc = wz0 * wy0, wz1 * wy0
    live = inside & there
    picture = image + b * image_step
    result = values + b * C * M + m
    for _ in range(C):
        if NEAREST:
            value = tl.load(picture + a + x0, mask=live, other=0.0) * (wa * wx0)
        else:
            low = wa * tl.load(picture + a + x0, mask=live, other=0.0)
            high = wa * tl.load(picture + a + x1, mask=live, other=0.0)
            low += wc * tl.load(picture + c + x0, mask=live, other=0.0)
            high += wc * tl.load(picture + c + x1, mask=live, other=0.0)
            if DIMS == 3:
                low += wb * tl.load(picture + b_ + x0, mask=live, other=0.0)
                high += wb * tl.load(picture + b_ + x1, mask=live, other=0.0)
                low += wd * tl.load(picture + d + x0, mask=live, other=0.0)
                high += wd * tl.load(picture + d + x1, mask=live, other=0.0)
            value = wx0 * low + wx1 * high
        if ADD:
            value += tl.load(where + m, mask=inside, other=0.0)
            where += M
        tl.store(result, value, mask=inside)
        picture += N
        result += M


@triton.jit(do_not_specialize=SIZES)
def slopes(
    image, coordinates, grad, grad_coordinates, image_step, coordinates_step, C, Z, Y, X, N, Q, R, M, blocks,
    DIMS: tl.constexpr, RELATIVE: tl.constexpr, ZEROS: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient by the coordinates, of linear sampling."""
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    m = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    v_z, v_y, v_x = _place(coordinates + b * coordinates_step, m, M, Q, R, inside, RELATIVE, DIMS)
    z0, z1, wz0, wz1, there = _near(v_z, Z, ZEROS, False)
    x0, x1, wx0, wx1, there_x = _near(v_x, X, ZEROS, False)
    dz0, dz1 = _slopes(v_z, Z, ZEROS)
    dx0, dx1 = _slopes(v_x, X, ZEROS)
    live = inside & there & there_x
    a, c = z0 * (Y * X), z1 * (Y * X)
    if DIMS == 3:
        y0, y1, wy0, wy1, there_y = _near(v_y, Y, ZEROS, False)
        dy0, dy1 = _slopes(v_y, Y, ZEROS)
        live &= there_y
        b_, d = a + y1 * X, c + y1 * X
        a, c = a + y0 * X, c + y0 * X
    along_z = tl.zeros((BLOCK,), tl.float32)
    along_y = tl.zeros((BLOCK,), tl.float32)
    along_x = tl.zeros((BLOCK,), tl.float32)
    picture = image + b * image_step
    given = grad + b * C * M + m
    for _ in range(C):
        g = tl.load(given, mask=live, other=0.0)
        a0 = tl.load(picture + a + x0, mask=live, other=0.0)
        a1 = tl.load(picture + a + x1, mask=live, other=0.0)
        c0 = tl.load(picture + c + x0, mask=live, other=0.0)
        c1 = tl.load(picture + c + x1, mask=live, other=0.0)
        if DIMS == 3:
            b0 = tl.load(picture + b_ + x0, mask=live, other=0.0)
            b1 = tl.load(picture + b_ + x1, mask=live, other=0.0)
            d0 = tl.load(picture + d + x0, mask=live, other=0.0)
            d1 = tl.load(picture + d + x1, mask=live, other=0.0)
            sa, sb, sc, sd = wx0 * a0 + wx1 * a1, wx0 * b0 + wx1 * b1, wx0 * c0 + wx1 * c1, wx0 * d0 + wx1 * d1
            along_z += g * (dz0 * (wy0 * sa + wy1 * sb) + dz1 * (wy0 * sc + wy1 * sd))
            along_y += g * (wz0 * (dy0 * sa + dy1 * sb) + wz1 * (dy0 * sc + dy1 * sd))
            sa, sb, sc, sd = dx0 * a0 + dx1 * a1, dx0 * b0 + dx1 * b1, dx0 * c0 + dx1 * c1, dx0 * d0 + dx1 * d1
            along_x += g * (wz0 * (wy0 * sa + wy1 * sb) + wz1 * (wy0 * sc + wy1 * sd))
        else:
            along_z += g * (dz0 * (wx0 * a0 + wx1 * a1) + dz1 * (wx0 * c0 + wx1 * c1))
            along_x += g * (wz0 * (dx0 * a0 + dx1 * a1) + wz1 * (dx0 * c0 + dx1 * c1))
        picture += N
        given += M
    # An axis without a slope gives nothing, even beside a NaN.
    along_z = tl.where(live & (dz0 != dz1), along_z, 0.0)
    along_x = tl.where(live & (dx0 != dx1), along_x, 0.0)
    if DIMS == 3:
        along_y = tl.where(live & (dy0 != dy1), along_y, 0.0)
    if ADD:
        given = grad + b * C * M + m
        along_z += tl.load(given, mask=inside, other=0.0)
        along_x += tl.load(given + (DIMS - 1) * M, mask=inside, other=0.0)
        if DIMS == 3:
            along_y += tl.load(given + M, mask=inside, other=0.0)
    result = grad_coordinates + b * DIMS * M + m
    tl.store(result, along_z, mask=inside)
    tl.store(result + (DIMS - 1) * M, along_x, mask=inside)
    if DIMS == 3:
        tl.store(result + M, along_y, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def scatter(
    coordinates, grad, grad_image, grad_image_step, coordinates_step, C, Z, Y, X, N, Q, R, M, blocks,
    DIMS: tl.constexpr, RELATIVE: tl.constexpr, ZEROS: tl.constexpr, NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the gradient by the image, in no fixed order."""
    unit = tl.program_id(0)
    b = (unit // blocks).to(tl.int64)
    m = unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    v_z, v_y, v_x = _place(coordinates + b * coordinates_step, m, M, Q, R, inside, RELATIVE, DIMS)
    z0, z1, wz0, wz1, there = _near(v_z, Z, ZEROS, NEAREST)
    x0, x1, wx0, wx1, there_x = _near(v_x, X, ZEROS, NEAREST)
    live = inside & there & there_x
    a, c = z0 * (Y * X), z1 * (Y * X)
    wa, wc = wz0, wz1
    if DIMS == 3:
        y0, y1, wy0, wy1, there_y = _near(v_y, Y, ZEROS, NEAREST)
        live &= there_y
        b_, d = a + y1 * X, c + y1 * X
        a, c = a + y0 * X, c + y0 * X
        wb, wd = wz0 * wy1, wz1 * wy1
        wa, wc = wz0 * wy0, wz1 * wy0
    result = grad_image + b * grad_image_step
    given = grad + b * C * M + m
    for _ in range(C):
        g = tl.load(given, mask=live, other=0.0)
        tl.atomic_add(result + a + x0, g * (wa * wx0), mask=live, sem="relaxed")
        if not NEAREST:
            tl.atomic_add(result + a + x1, g * (wa * wx1), mask=live, sem="relaxed")
            tl.atomic_add(result + c + x0, g * (wc * wx0), mask=live, sem="relaxed")
            tl.atomic_add(result + c + x1, g * (wc * wx1), mask=live, sem="relaxed")
            if DIMS == 3:
                tl.atomic_add(result + b_ + x0, g * (wb * wx0), mask=live, sem="relaxed")
                tl.atomic_add(result + b_ + x1, g * (wb * wx1), mask=live, sem="relaxed")
                tl.atomic_add(result + d + x0, g * (wd * wx0), mask=live, sem="relaxed")
                tl.atomic_add(result + d + x1, g * (wd * wx1), mask=live, sem="relaxed")
        result += N
        given += M
