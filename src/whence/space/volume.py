"""Volume: an image and the grid it lives on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from whence.space.grid import Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """Image tensor (B, C, *spatial) on a grid; float32 for intensities, an integer type for labels.

    Raises ValueError if the tensor's spatial shape is not the grid's.
    """

    tensor: torch.Tensor
    grid: Grid

    def __post_init__(self) -> None:
        if tuple(self.tensor.shape[2:]) != self.grid.shape:
            raise ValueError(
                f"a volume on a grid of shape {self.grid.shape} needs a tensor (B, C, *{self.grid.shape}); "
                f"got {tuple(self.tensor.shape)}"
            )

    @property
    def dims(self) -> int:
        return self.grid.dims

    def with_tensor(self, tensor: torch.Tensor) -> Volume:
        """Another image on the same grid."""
        return Volume(tensor, self.grid)

    def numpy(self):
        """First image's first channel as a NumPy array of the grid's shape."""
        return self.tensor[0, 0].detach().cpu().numpy()
