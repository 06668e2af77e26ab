"""The few hot operations, behind one name each.

Tensors only, in voxel units: images (B, C, *spatial), coordinates and displacements (B, D, *spatial)
with component d along tensor axis d. The plain torch reference answers for every device and dtype.
"""

from whence.kernels.reference.correlation import local_correlation
from whence.kernels.reference.histogram import joint_histogram
from whence.kernels.reference.mind import mind_descriptor
from whence.kernels.reference.sampling import identity, sample, warp
from whence.kernels.reference.smoothing import gaussian
from whence.kernels.reference.transport import compose, exp, jacobian_determinant

__all__ = [
    "compose",
    "exp",
    "gaussian",
    "identity",
    "jacobian_determinant",
    "joint_histogram",
    "local_correlation",
    "mind_descriptor",
    "sample",
    "warp",
]
