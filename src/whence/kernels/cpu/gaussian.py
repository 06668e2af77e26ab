"""Smoothing by a separable Gaussian, all axes in one pass over the planes."""

# ruff: noqa: N803, N806
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange

from whence.kernels.cpu.launch import inner, outer, run
from whence.kernels.reference.smoothing import weights

F = np.float32
U = np.uintp
ZERO = F(0)


def gaussian(image: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """As the reference's ``gaussian``; without a gradient."""
    kernels = [weights(sigma) if sigma > 0 else torch.ones(1) for sigma in sigmas]
    if len(kernels) == 2:
        kernels.insert(1, torch.ones(1))
    result, sizes = torch.empty_like(image, memory_format=torch.contiguous_format), _three(image)
    images = image.shape[0] * image.shape[1]
    chunks = max(1, min(sizes[0] // 4, -(-4 * torch.get_num_threads() // images)))
    run(_smooth, image.contiguous(), result, *kernels, images, *sizes, chunks)
    return result


def _three(image: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the lattice; of a 2D one the middle one is 1."""
    return (image.shape[2], 1, image.shape[3]) if image.ndim == 4 else tuple(image.shape[2:])


@inner
def _scale(result, source, weight, count):
    for i in range(count):
        result[U(i)] = weight * source[U(i)]


@inner
def _add(result, source, weight, count):
    for i in range(count):
        result[U(i)] += weight * source[U(i)]


@outer
def _smooth(image, result, wz, wy, wx, images, Z, Y, X, chunks):
    N, size = Z * Y * X, Y * X
    rz, ry, rx = wz.size // 2, wy.size // 2, wx.size // 2
    for unit in prange(images * chunks):
        picture, chunk = unit // chunks, unit % chunks
        source, target = image[U(picture * N) : U((picture + 1) * N)], result[U(picture * N) : U((picture + 1) * N)]
        plane, row = np.empty(size, F), np.empty(X + 2 * rx, F)
        for z in range(chunk * Z // chunks, (chunk + 1) * Z // chunks):
            _scale(plane, source[U(z * size) :], wz[rz], size)
            for k in range(1, rz + 1):
                _add(plane, source[U(max(z - k, 0) * size) :], wz[rz + k], size)
                _add(plane, source[U(min(z + k, Z - 1) * size) :], wz[rz + k], size)
            for y in range(Y):
                middle = row[U(rx) :]
                _scale(middle, plane[U(y * X) :], wy[ry], X)
                for k in range(1, ry + 1):
                    _add(middle, plane[U(max(y - k, 0) * X) :], wy[ry + k], X)
                    _add(middle, plane[U(min(y + k, Y - 1) * X) :], wy[ry + k], X)
                for k in range(rx):
                    row[k] = row[rx]
                    row[rx + X + k] = row[rx + X - 1]
                out = target[U((z * Y + y) * X) :]
                _scale(out, middle, wx[rx], X)
                for k in range(1, rx + 1):
                    _add(out, row[U(rx - k) :], wx[rx + k], X)
                    _add(out, row[U(rx + k) :], wx[rx + k], X)
