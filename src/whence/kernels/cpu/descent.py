"""A step of gradient descent on a field, each part in one pass."""

# ruff: noqa: N803, N806
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange

from whence.kernels.cpu.launch import inner, outer, run

F = np.float32
U = np.uintp
ZERO, HALF = F(0), F(0.5)


def image_force(image: torch.Tensor, slope: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    """As the reference's ``image_force``; without a gradient."""
    dims, sizes = image.ndim - 2, _three(image)
    result = image.new_empty((image.shape[0], dims, *image.shape[2:]))
    arrays = (image.contiguous(), slope.contiguous(), result)
    run(_force, *arrays, dims, image.shape[0], image.shape[1], *sizes, *_factors(scale))
    return result


def moment_step(
    force: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rates: tuple[float, float],
    corrections: tuple[float, float],
    floor: float,
    scale: Sequence[float],
) -> torch.Tensor:
    """As the reference's ``moment_step``."""
    result = torch.empty_like(force)
    numbers = [F(n) for n in (*rates, *corrections, floor)]
    sizes = (force.shape[1], force.shape[0], force[0, 0].numel())
    run(_step, force.contiguous(), first, second, result, *sizes, *numbers, *_factors(scale))
    return result


def _factors(scale: Sequence[float]) -> tuple[np.float32, ...]:
    """One a axis of three; of 2D the middle one is missing."""
    factors = [F(s) for s in scale]
    return tuple(factors) if len(factors) == 3 else (factors[0], ZERO, factors[1])


def _three(image: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the lattice; of a 2D one the middle one is 1."""
    return (image.shape[2], 1, image.shape[3]) if image.ndim == 4 else tuple(image.shape[2:])


@inner
def _rise(target, high, low, slope, factor, count):
    for i in range(count):
        target[U(i)] += (high[U(i)] - low[U(i)]) * slope[U(i)] * factor


@outer
def _force(image, slope, result, D, batch, C, Z, Y, X, fz, fy, fx):
    N = Z * Y * X
    for unit in prange(batch * Z):
        b, z = unit // Z, unit % Z
        for y in range(Y):
            o = (z * Y + y) * X
            rows = result[U(b * D * N) : U((b + 1) * D * N)]
            for d in range(D):
                rows[U(d * N + o) : U(d * N + o + X)] = ZERO
            for c in range(C):
                picture = image[U((b * C + c) * N) : U((b * C + c + 1) * N)]
                s = slope[U((b * C + c) * N + o) :]
                if 0 < z < Z - 1:
                    _rise(rows[U(o) :], picture[U(o + Y * X) :], picture[U(o - Y * X) :], s, HALF * fz, X)
                if 0 < y < Y - 1 and D == 3:
                    _rise(rows[U(N + o) :], picture[U(o + X) :], picture[U(o - X) :], s, HALF * fy, X)
                if X > 2:
                    ahead, behind = picture[U(o + 2) :], picture[U(o) :]
                    _rise(rows[U((D - 1) * N + o + 1) :], ahead, behind, s[U(1) :], HALF * fx, X - 2)


@outer
def _step(force, first, second, result, D, batch, N, rate, memory, gain, lift, floor, fz, fy, fx):
    block = 4096
    blocks = (N + block - 1) // block
    for unit in prange(batch * blocks):
        b, start = unit // blocks, unit % blocks * block
        count = min(block, N - start)
        length = second[U(b * N + start) :]
        inverse = np.zeros(block, F)
        for d in range(D):
            f = force[U((b * D + d) * N + start) :]
            for i in range(count):
                inverse[U(i)] += f[U(i)] * f[U(i)]
        share = memory / F(D)
        for i in range(count):
            length[U(i)] += share * inverse[U(i)] - memory * length[U(i)]
            inverse[U(i)] = gain / (np.sqrt(max(length[U(i)], ZERO) * lift) + floor)
        for d in range(D):
            factor = fz if d == 0 else (fx if d == D - 1 else fy)
            _advance(
                force[U((b * D + d) * N + start) :],
                first[U((b * D + d) * N + start) :],
                result[U((b * D + d) * N + start) :],
                inverse,
                rate,
                factor,
                count,
            )


@inner
def _advance(force, first, result, inverse, rate, factor, count):
    for i in range(count):
        m = first[U(i)] + rate * (force[U(i)] - first[U(i)])
        first[U(i)] = m
        result[U(i)] = m * inverse[U(i)] * factor
