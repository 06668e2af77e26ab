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
    """The voxels that a slope at voxel i of n is taken between, and the inverse of their distance."""
    low, high = (i - 1 if i > 0 else 0), (i + 1 if i < n - 1 else n - 1)
    return low, high, (F(0.5) if high - low == 2 else F(high - low))


@inner
def _slopes(u, c, z, y, x, Z, Y, X, N):
    """Derivatives of component c along the three axes; 0 along an axis of one voxel."""
    z0, z1, dz = _ends(z, Z)
    y0, y1, dy = _ends(y, Y)
    x0, x1, dx = _ends(x, X)
    o = c * N
    along_z = (u[U(o + (z1 * Y + y) * X + x)] - u[U(o + (z0 * Y + y) * X + x)]) * dz if dz > 0 else F(0)
    along_y = (u[U(o + (z * Y + y1) * X + x)] - u[U(o + (z * Y + y0) * X + x)]) * dy if dy > 0 else F(0)
    along_x = (u[U(o + (z * Y + y) * X + x1)] - u[U(o + (z * Y + y) * X + x0)]) * dx if dx > 0 else F(0)
    return along_z, along_y, along_x


@inner
def _matrix(u, D, z, y, x, Z, Y, X, N):
    """J of phi; in 2D the middle axis stays where it is."""
    a, b, c = _slopes(u, 0, z, y, x, Z, Y, X, N)
    d, e, f = F(0), F(0), F(0)
    if D == 3:
        d, e, f = _slopes(u, 1, z, y, x, Z, Y, X, N)
    g, h, i = _slopes(u, D - 1, z, y, x, Z, Y, X, N)
    return a + F(1), b, c, d, e + F(1), f, g, h, i + F(1)


@outer
def _forward(u, result, D, batch, Z, Y, X):
    N = Z * Y * X
    for unit in prange(batch * Z):
        sample, z = unit // Z, unit % Z
        field = u[U(sample * D * N) :]
        for y in range(Y):
            for x in range(X):
                a, b, c, d, e, f, g, h, i = _matrix(field, D, z, y, x, Z, Y, X, N)
                value = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
                result[U(sample * N + (z * Y + y) * X + x)] = value


@outer
def _backward(u, grad, result, D, batch, Z, Y, X, chunks):
    """A slab of the result belongs to one task; planes beside it are computed by both neighbours."""
    N = Z * Y * X
    for unit in prange(batch * chunks):
        sample, chunk = unit // chunks, unit % chunks
        low, high = chunk * Z // chunks, (chunk + 1) * Z // chunks
        field, total = u[U(sample * D * N) :], result[U(sample * D * N) :]
        for z in range(max(low - 1, 0), min(high + 1, Z)):
            for y in range(Y):
                for x in range(X):
                    a, b, c, d, e, f, g, h, i = _matrix(field, D, z, y, x, Z, Y, X, N)
                    given = grad[U(sample * N + (z * Y + y) * X + x)]
                    # The cofactors are the determinant's derivatives.
                    _add(total, 0, given * (e * i - f * h), given * (f * g - d * i), given * (d * h - e * g),
                         z, y, x, Z, Y, X, N, low, high)  # fmt: skip
                    if D == 3:
                        _add(total, 1, given * (c * h - b * i), given * (a * i - c * g), given * (b * g - a * h),
                             z, y, x, Z, Y, X, N, low, high)  # fmt: skip
                    _add(total, D - 1, given * (b * f - c * e), given * (c * d - a * f), given * (a * e - b * d),
                         z, y, x, Z, Y, X, N, low, high)  # fmt: skip


@inner
def _add(total, c, along_z, along_y, along_x, z, y, x, Z, Y, X, N, low, high):
    z0, z1, dz = _ends(z, Z)
    y0, y1, dy = _ends(y, Y)
    x0, x1, dx = _ends(x, X)
    o = c * N
    if dz > 0 and low <= z1 < high:
        total[U(o + (z1 * Y + y) * X + x)] += along_z * dz
    if dz > 0 and low <= z0 < high:
        total[U(o + (z0 * Y + y) * X + x)] -= along_z * dz
    if not low <= z < high:
        return
    if dy > 0:
        total[U(o + (z * Y + y1) * X + x)] += along_y * dy
        total[U(o + (z * Y + y0) * X + x)] -= along_y * dy
    if dx > 0:
        total[U(o + (z * Y + y) * X + x1)] += along_x * dx
        total[U(o + (z * Y + y) * X + x0)] -= along_x * dx
