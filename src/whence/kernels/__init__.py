"""The few hot operations, behind one name each.

Tensors only, in voxel units: images (B, C, *spatial), coordinates and displacements (B, D, *spatial)
with component d along tensor axis d. The plain torch reference defines each and answers for every device and
dtype; float32 tensors on a CPU, and on a GPU with Triton, go to versions that are fused, compiled when first called.
"""

from whence.kernels.dispatch import (
    compose,
    exp,
    gaussian,
    image_force,
    jacobian_determinant,
    joint_histogram,
    local_correlation,
    mind_descriptor,
    moment_step,
    sample,
    sample_labels,
    solve,
    warp,
)
from whence.kernels.reference.sampling import identity

__all__ = [
    "compose",
    "exp",
    "gaussian",
    "identity",
    "image_force",
    "jacobian_determinant",
    "joint_histogram",
    "local_correlation",
    "mind_descriptor",
    "moment_step",
    "sample",
    "sample_labels",
    "solve",
    "warp",
]
