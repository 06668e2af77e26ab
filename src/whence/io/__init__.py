"""The only door to disk: images, transforms, points and weights.

World coordinates are RAS mm in memory whatever the file says; files hold what their readers expect
(LPS vectors for ITK). Files are written beside their place and renamed into it.
"""

from whence.io.atomic import replacing, staged_folder
from whence.io.images import read, read_labels, write, write_labels
from whence.io.points import Points, read_points, write_points
from whence.io.transforms import read_affine, read_displacement, read_transform, write_affine, write_displacement
from whence.io.weights import load_json, load_weights, load_yaml, save_json, save_weights, save_yaml

__all__ = [
    "Points",
    "load_json",
    "load_weights",
    "load_yaml",
    "read",
    "read_affine",
    "read_displacement",
    "read_labels",
    "read_points",
    "read_transform",
    "replacing",
    "save_json",
    "save_weights",
    "save_yaml",
    "staged_folder",
    "write",
    "write_affine",
    "write_displacement",
    "write_labels",
    "write_points",
]
