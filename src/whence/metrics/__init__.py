"""Image quality, overlap, displacement and target registration error, folding, novelty."""

from whence.metrics.body import body_mask, robust_range
from whence.metrics.edges import edge_agreement
from whence.metrics.geometry import displacement_error, distance_to, inverse_error, target_registration_error
from whence.metrics.image import image_quality
from whence.metrics.novelty import unexplained
from whence.metrics.overlap import label_overlap
from whence.metrics.ranking import area_under_curve

__all__ = [
    "area_under_curve",
    "body_mask",
    "displacement_error",
    "distance_to",
    "edge_agreement",
    "image_quality",
    "inverse_error",
    "label_overlap",
    "robust_range",
    "target_registration_error",
    "unexplained",
]
