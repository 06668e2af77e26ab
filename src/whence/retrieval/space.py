"""Masks in the space of a bank, one bit a voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from whence import kernels
from whence.errors import InputError
from whence.field import resample
from whence.space import Grid, Volume

# Share of a mask that must lie in the bank's field of view.
_INSIDE = 0.9


@dataclass(frozen=True)
class BankSpace:
    """The grid on which a bank compares masks; those of other grids of the same world are brought to it."""

    grid: Grid

    @property
    def width(self) -> int:
        """Bytes of a mask: whole words of 64 bits."""
        return 8 * -(-int(np.prod(self.grid.shape)) // 64)

    def pack(self, mask: Volume, name: str = "the mask") -> np.ndarray:
        """Bits (width,) uint8 of a mask (1, 1, *spatial), not 0 where it is.

        Raises InputError where it is empty, of other dimensions, or for the most part out of the bank's view.
        """
        if mask.dims != self.grid.dims or mask.tensor.shape[:2] != (1, 1):
            raise InputError(
                f"{name} is {mask.dims}D with {mask.tensor.shape[1]} channel(s); "
                f"the bank compares {self.grid.dims}D masks of one"
            )
        inside = mask.tensor[0, 0] != 0
        if not bool(inside.any()):
            raise InputError(f"{name} is empty; expected a mask that is not 0 where the tumour is")
        if mask.grid.same_as(self.grid):
            return self._packed(inside.numpy())
        places = mask.grid.to_world(inside.nonzero().numpy())
        seen = float(self.grid.contains(places).mean())
        if seen < _INSIDE:
            raise InputError(
                f"{seen:.0%} of {name} lies in the bank's field of view, {self.grid}; expected {_INSIDE:.0%}: "
                "masks are compared in one space, such as that of a template"
            )
        soft = _smoothed(Volume(inside[None, None].float(), mask.grid), self.grid)
        found = resample(soft, self.grid, outside="zeros").tensor[0, 0]
        # A mask that no voxel of a coarse grid is half filled by is still there.
        return self._packed((found >= min(0.5, float(found.max()))).numpy())

    def unpack(self, bits: np.ndarray) -> np.ndarray:
        """Mask (*shape) bool of bits."""
        return np.unpackbits(bits, count=int(np.prod(self.grid.shape))).reshape(self.grid.shape).astype(bool)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for a file."""
        return {"shape": list(self.grid.shape), "affine": self.grid.affine.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> BankSpace:
        return cls(Grid(tuple(plain["shape"]), np.array(plain["affine"])))

    def _packed(self, inside: np.ndarray) -> np.ndarray:
        found = np.zeros(self.width, dtype=np.uint8)
        bits = np.packbits(inside.reshape(-1))
        found[: len(bits)] = bits
        return found


def thumbnail(image: Volume, grid: Grid, side: int = 24) -> np.ndarray:
    """An image's embedding (n,) float32 of length 1: its intensities on a coarse version of a grid, standardised.

    ``side`` voxels along the longest axis. The cosine of two is the correlation of the images as seen from afar.
    """
    coarse = grid.resampled(tuple([float(max(np.asarray(grid.shape) * grid.spacing) / side)] * grid.dims))
    seen = resample(_smoothed(image, coarse), coarse).tensor.mean(dim=1).flatten().numpy()
    seen = seen - seen.mean()
    length = float(np.linalg.norm(seen))
    return (seen / length if length > 0 else seen).astype(np.float32)


def _smoothed(image: Volume, grid: Grid) -> Volume:
    """An image on its canonical axes without the detail that a coarser grid cannot hold."""
    there = resample(image, image.grid.canonical())
    factors = grid.spacing / there.grid.spacing
    return there.with_tensor(kernels.gaussian(there.tensor.float(), [0.4 * f if f > 1.2 else 0.0 for f in factors]))
