"""The Jacobian determinant, with its gradient."""

# ruff: noqa: N803, N806
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch.autograd.function import once_differentiable

from whence.kernels.cpu.launch import inner, outer, run

F = np.float32
U = np.uintp


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """As the reference's ``jacobian_determinant``."""
    return _Determinant.apply(displacement.contiguous())


class _Determinant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        result = u.new_empty((u.shape[0], 1, *u.shape[2:]))
        run(_forward, u, result, u.shape[1], u.shape[0], *_three(u))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        result = torch.zeros_like(u)
        sizes = _three(u)
        chunks = max(1, min(sizes[0] // 4, -(-4 * torch.get_num_threads() // u.shape[0])))
        run(_backward, u, grad.contiguous(), result, u.shape[1], u.shape[0], *sizes, chunks)
        return result


def _three(u: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the lattice; of a 2D one the middle one is 1."""
    return (u.shape[2], 1, u.shape[3]) if u.ndim == 4 else tuple(u.shape[2:])


@inner
def _ends(i, n):
    """The voxels that a slope at voxel i of n is taken between, and the inverse of their distance; 0 for one voxel."""
    low, high = (i - 1 if i > 0 else 0), (i + 1 if i < n - 1 else n - 1)
    return low, high, (F(0.5) if high - low == 2 else F(high - low))


@inner
def _fill(matrix, u, D, z, y, Z, Y, X, N):
    """Slopes of a row, (9, X): those of component c along axis a at 3 c + a; in 2D the middle ones are 0."""
    z0, z1, dz = _ends(z, Z)
    y0, y1, dy = _ends(y, Y)
    for c in range(D):
        above, below = u[U(c * N + (z1 * Y + y) * X) :], u[U(c * N + (z0 * Y + y) * X) :]
        behind, before = u[U(c * N + (z * Y + y1) * X) :], u[U(c * N + (z * Y + y0) * X) :]
        row, to = u[U(c * N + (z * Y + y) * X) :], U(3 * (2 * c if D == 2 else c) * X)
        # Not even what is unknown has a slope along an axis of one voxel.
        matrix[to : to + U(2 * X)] = 0
        if z1 > z0:
            for x in range(X):
                matrix[to + U(x)] = (above[x] - below[x]) * dz
        if y1 > y0:
            for x in range(X):
                matrix[to + U(X + x)] = (behind[x] - before[x]) * dy
        along = matrix[to + U(2 * X) :]
        for x in range(1, X - 1):
            along[x] = (row[x + 1] - row[x - 1]) * F(0.5)
        along[0] = row[1] - row[0] if X > 1 else F(0)
        if X > 1:
            along[X - 1] = row[X - 1] - row[X - 2]


@outer
def _forward(u, result, D, batch, Z, Y, X):
    N = Z * Y * X
    for unit in prange(batch * Z):
        sample, z = unit // Z, unit % Z
        field, m = u[U(sample * D * N) :], np.zeros(9 * X, F)
        for y in range(Y):
            _fill(m, field, D, z, y, Z, Y, X, N)
            row = result[U(sample * N + (z * Y + y) * X) :]
            if D == 2:
                for x in range(X):
                    row[x] = (m[x] + F(1)) * (m[U(8 * X + x)] + F(1)) - m[U(2 * X + x)] * m[U(6 * X + x)]
                continue
            for x in range(X):
                a, b, c = m[x] + F(1), m[U(X + x)], m[U(2 * X + x)]
                d, e, f = m[U(3 * X + x)], m[U(4 * X + x)] + F(1), m[U(5 * X + x)]
                g, h, i = m[U(6 * X + x)], m[U(7 * X + x)], m[U(8 * X + x)] + F(1)
                row[x] = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@outer
def _backward(u, grad, result, D, batch, Z, Y, X, chunks):
    """A slab of the result belongs to one task; planes beside it are computed by both neighbours."""
    N = Z * Y * X
    for unit in prange(batch * chunks):
        sample, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        field, total = u[U(sample * D * N) :], result[U(sample * D * N) :]
        m = np.zeros(9 * X, F)
        for z in range(max(low - 1, 0), min(high + 1, Z)):
            for y in range(Y):
                _fill(m, field, D, z, y, Z, Y, X, N)
                given = grad[U(sample * N + (z * Y + y) * X) :]
                # The cofactors are the determinant's derivatives.
                for x in range(X):
                    w = given[x]
                    a, b, c = m[x] + F(1), m[U(X + x)], m[U(2 * X + x)]
                    d, e, f = m[U(3 * X + x)], m[U(4 * X + x)] + F(1), m[U(5 * X + x)]
                    g, h, i = m[U(6 * X + x)], m[U(7 * X + x)], m[U(8 * X + x)] + F(1)
                    m[x], m[U(X + x)], m[U(2 * X + x)] = w * (e * i - f * h), w * (f * g - d * i), w * (d * h - e * g)
                    m[U(3 * X + x)], m[U(4 * X + x)] = w * (c * h - b * i), w * (a * i - c * g)
                    m[U(5 * X + x)], m[U(6 * X + x)] = w * (b * g - a * h), w * (b * f - c * e)
                    m[U(7 * X + x)], m[U(8 * X + x)] = w * (c * d - a * f), w * (a * e - b * d)
                for c in range(D):
                    _spread(total[U(c * N) :], m[U(3 * (2 * c if D == 2 else c) * X) :], z, y, Z, Y, X, low, high)
                if D == 2:
                    m[U(3 * X) : U(6 * X)] = 0


@inner
def _spread(total, slopes, z, y, Z, Y, X, low, high):
    """Add what a row's slopes (3, X) are worth to the voxels that they are taken between, in the planes low to high."""
    z0, z1, dz = _ends(z, Z)
    y0, y1, dy = _ends(y, Y)
    along_y, along_x = slopes[U(X) :], slopes[U(2 * X) :]
    if z1 > z0 and low <= z1 < high:
        above = total[U((z1 * Y + y) * X) :]
        for x in range(X):
            above[x] += slopes[x] * dz
    if z1 > z0 and low <= z0 < high:
        below = total[U((z0 * Y + y) * X) :]
        for x in range(X):
            below[x] -= slopes[x] * dz
    if not low <= z < high:
        return
    row, behind, before = total[U((z * Y + y) * X) :], total[U((z * Y + y1) * X) :], total[U((z * Y + y0) * X) :]
    if y1 > y0:
        for x in range(X):
            behind[x] += along_y[x] * dy
        for x in range(X):
            before[x] -= along_y[x] * dy
    for x in range(X):
        x0, x1, dx = _ends(x, X)
        row[x1] += along_x[x] * dx
        row[x0] -= along_x[x] * dx
