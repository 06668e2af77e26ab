"""World frames: RAS+ mm, the frame of this package, and LPS mm, the frame of ITK, ANTs and DICOM."""

from __future__ import annotations

import numpy as np

FRAMES = ("RAS", "LPS")


def to_frame(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Points or vectors (..., D) in mm carried from one world frame to another.

    RAS and LPS differ by the sign of the first two coordinates, in 2D as in 3D.
    Raises ValueError for a frame that is neither.
    """
    for frame in (source, target):
        if frame not in FRAMES:
            raise ValueError(f"unknown frame {frame!r}; expected one of {', '.join(FRAMES)}")
    points = np.asarray(points, dtype=np.float64)
    if source == target:
        return points.copy()
    signs = np.ones(points.shape[-1])
    signs[:2] = -1
    return points * signs
