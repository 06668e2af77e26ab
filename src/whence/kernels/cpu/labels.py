"""Sampling labels by the vote of the voxels around a point."""

# ruff: noqa: N803, N806
from __future__ import annotations

import numpy as np
import torch
from numba import prange

from whence.kernels.cpu.launch import inner, outer, run

F, INT = np.float32, np.int32
U = np.uintp
ZERO, ONE = F(0), F(1)


def sample_labels(labels: torch.Tensor, coordinates: torch.Tensor, outside: str) -> torch.Tensor:
    """As the reference's ``sample_labels``."""
    batch, channels = max(labels.shape[0], coordinates.shape[0]), labels.shape[1]
    dims, out = labels.ndim - 2, coordinates.shape[2:]
    shape = tuple(labels.shape[2:])
    three = (shape[0], 1, shape[1]) if dims == 2 else shape
    rows = out[:-1].numel() if len(out) > 1 else 1
    result = torch.empty((batch, channels, *out), dtype=torch.int64)
    arrays = (labels.to(torch.int64).contiguous(), coordinates.contiguous(), result)
    batches = (batch, labels.shape[0], coordinates.shape[0])
    run(_sample, *arrays, dims, channels, three, rows, out[-1], batches, outside == "zeros")
    return result.to(labels.dtype)


@inner
def _lay(v, n, zeros):
    """Lower neighbour on an axis of n voxels, and the weight of the upper one; one below and above lie outside."""
    low, high = (F(-2), F(n + 1)) if zeros else (ZERO, F(n - 1))
    s = min(max(v, low), high)
    floor = np.floor(s)
    return INT(floor), s - floor


@outer
def _sample(labels, coordinates, result, dims, channels, shape, rows, X_out, batches, zeros):
    Z, Y, X = shape
    N, M = Z * Y * X, rows * X_out
    batch, B_l, B_c = batches
    for unit in prange(batch * rows):
        b, row = unit // rows, unit % rows
        where = coordinates[U((b % B_c) * dims * M) : U((b % B_c + 1) * dims * M)]
        found, weights = np.empty(8, np.int64), np.empty(8, F)
        for q in range(X_out):
            o = row * X_out + q
            z, x = where[U(o)], where[U(o + (dims - 1) * M)]
            y = where[U(o + M)] if dims == 3 else ZERO
            if z != z or y != y or x != x:
                for c in range(channels):
                    result[U((b * channels + c) * M + o)] = 0
                continue
            i, wz = _lay(z, Z, zeros)
            j, wy = _lay(y, Y, zeros)
            k, wx = _lay(x, X, zeros)
            for c in range(channels):
                image = labels[U(((b % B_l) * channels + c) * N) : U(((b % B_l) * channels + c + 1) * N)]
                for corner in range(8):
                    dz, dy, dx = corner >> 2, (corner >> 1) & 1, corner & 1
                    cz, cy, cx = i + dz, j + dy, k + dx
                    weights[corner] = (wz if dz else ONE - wz) * (wy if dy else ONE - wy) * (wx if dx else ONE - wx)
                    inside = 0 <= cz < Z and 0 <= cy < Y and 0 <= cx < X
                    at = (np.int64(min(max(cz, 0), Z - 1)) * Y + min(max(cy, 0), Y - 1)) * X + min(max(cx, 0), X - 1)
                    found[corner] = image[U(at)] if inside or not zeros else 0
                best, most = found[0], F(-1)
                for first in range(8):
                    votes = ZERO
                    for other in range(8):
                        if found[other] == found[first]:
                            votes += weights[other]
                    if votes > most:
                        best, most = found[first], votes
                result[U((b * channels + c) * M + o)] = best
