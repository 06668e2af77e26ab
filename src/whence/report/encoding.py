"""Arrays as text for the page: quantised, compressed, and placed in the world."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whence.field import Displacement
from whence.space import Grid, Volume

# A field's step: far below what a reader can see, and coarse enough to compress well.
QUANTUM_VOXELS = 0.005


@dataclass
class Blocks:
    """Text blocks of a page by name, and their total size in bytes."""

    texts: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(text) for text in self.texts.values())

    def add(self, name: str, raw: bytes) -> str:
        """Keep bytes under a name, gzipped and in base64; returns the name."""
        self.texts[name] = base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")
        return name


def placed(grid: Grid) -> dict[str, Any]:
    """A grid as the page keeps it: three axes, affine as 12 numbers; a 2D grid is one slice at z = 0."""
    dims = grid.dims
    affine = np.eye(4)
    affine[:dims, :dims] = grid.affine[:dims, :dims]
    affine[:dims, 3] = grid.affine[:dims, dims]
    return {"shape": [*grid.shape, *[1] * (3 - dims)], "affine": affine[:3].ravel().tolist()}


def planes16(values: np.ndarray) -> bytes:
    """16-bit values as differences of neighbours modulo 2^16, high bytes before low bytes."""
    flat = np.ascontiguousarray(values).ravel().astype(np.int64)
    steps = (np.diff(flat, prepend=0) & 0xFFFF).astype(np.uint16)
    return (steps >> 8).astype(np.uint8).tobytes() + (steps & 0xFF).astype(np.uint8).tobytes()


def unplanes16(raw: bytes, signed: bool) -> np.ndarray:
    """The inverse of ``planes16``, as the page does it."""
    parts = np.frombuffer(raw, dtype=np.uint8).astype(np.int64)
    half = len(parts) // 2
    values = np.cumsum((parts[:half] << 8) + parts[half:]) & 0xFFFF
    return values.astype(np.uint16).view(np.int16) if signed else values.astype(np.uint16)


def encode_image(blocks: Blocks, name: str, volume: Volume, limits: tuple[float, float], bits: int) -> dict[str, Any]:
    """An image (1, C, *spatial) quantised between two limits to 8 or 16 bits."""
    low, high = limits
    top = (1 << bits) - 1
    scale = (high - low) / top if high > low else 1.0
    values = np.nan_to_num(volume.tensor[0].detach().cpu().numpy().astype(np.float64), nan=low, posinf=high, neginf=low)
    codes = np.clip(np.round((values - low) / scale), 0, top)
    raw = codes.astype(np.uint8).tobytes() if bits == 8 else planes16(codes)
    return {
        "block": blocks.add(name, raw),
        "encoding": "u1" if bits == 8 else "u2",
        "channels": int(values.shape[0]),
        "scale": scale,
        "offset": low,
        **placed(volume.grid),
    }


def encode_labels(blocks: Blocks, name: str, volume: Volume) -> tuple[dict[str, Any], list[int]]:
    """Integer labels as indices (0 is background), and the label that each further index stands for."""
    values = volume.numpy()
    kept = [int(v) for v in np.unique(values) if v != 0]
    indices = np.where(values == 0, 0, np.searchsorted(np.asarray(kept or [0]), values) + 1)
    narrow = len(kept) < 256
    raw = indices.astype(np.uint8).tobytes() if narrow else planes16(indices)
    entry = {
        "block": blocks.add(name, raw),
        "encoding": "u1" if narrow else "u2",
        "channels": 1,
        "scale": 1.0,
        "offset": 0.0,
        **placed(volume.grid),
    }
    return entry, kept


def quantise_field(displacement: Displacement) -> tuple[np.ndarray, float]:
    """Displacement vectors (D, *spatial) in RAS mm as int16 steps, and the step in mm."""
    vectors = np.nan_to_num(displacement.to_world()[0].detach().cpu().numpy().astype(np.float64))
    finest = QUANTUM_VOXELS * float(displacement.grid.spacing.min())
    quantum = max(finest, float(np.abs(vectors).max()) / 32767)
    return np.round(vectors / quantum).astype(np.int16), quantum


def encode_field(blocks: Blocks, name: str, displacement: Displacement) -> dict[str, Any]:
    """A displacement as vectors in RAS mm, 16 bits each."""
    codes, quantum = quantise_field(displacement)
    return {
        "block": blocks.add(name, planes16(codes)),
        "encoding": "i2",
        "channels": int(codes.shape[0]),
        "scale": quantum,
        "offset": 0.0,
        **placed(displacement.grid),
    }
