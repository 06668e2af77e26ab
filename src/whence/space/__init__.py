"""Where voxels are: grids, the images that live on them, and points in world coordinates."""

from whence.space.grid import Grid
from whence.space.points import FRAMES, to_frame
from whence.space.volume import Volume

__all__ = ["FRAMES", "Grid", "Volume", "to_frame"]
