"""Dissimilarities of two images on one grid: 0 for images that agree, larger the less they do.

All take images (B, C, *spatial) scaled to [-1, 1], optionally a mask (B or 1, 1, *spatial) of weights that
says where they are compared, and return a scalar mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Protocol

import torch

from whence import kernels


class Similarity(Protocol):
    """What registration and training compare images by."""

    def __call__(self, a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor: ...


def _in_full_precision(measure: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The measure with mixed precision switched off: sums over a window or a histogram outgrow half floats."""

    @wraps(measure)
    def full(a: torch.Tensor, b: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
        with torch.autocast(a.device.type, enabled=False):
            return measure(_full(a), _full(b), *more, **options)

    return full


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@_in_full_precision
def ncc(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None, window: int = 9, epsilon: float = 3e-3
) -> torch.Tensor:
    """1 - mean squared local correlation; blind to a locally linear change of contrast.

    ``epsilon`` is the variance below which a window counts as flat.
    """
    return 1 - _mean(kernels.local_correlation(a, b, window, epsilon, mask), mask)


@_in_full_precision
def normalised_mutual_information(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None, bins: int = 32
) -> torch.Tensor:
    """NMI = 2 I(a; b) / (H(a) + H(b)) of each image of the batch, (B,), 0 (independent) to 1."""
    mutual, entropy_a, entropy_b = _information(a, b, bins, mask)
    return 2 * mutual / (entropy_a + entropy_b).clamp_min(1e-6)


def nmi(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None, bins: int = 32) -> torch.Tensor:
    """Differentiable normalised mutual information as a loss, 1 - NMI (TraceTrans's DNMI)."""
    return 1 - normalised_mutual_information(a, b, mask, bins).mean()


@_in_full_precision
def mi(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None, bins: int = 32) -> torch.Tensor:
    """Negative mutual information in nats."""
    return -_information(a, b, bins, mask)[0].mean()


@_in_full_precision
def mind(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None, radius: int = 2, dilation: int = 2
) -> torch.Tensor:
    """Mean absolute difference of MIND-SSC descriptors, channel by channel."""
    parts = []
    for c in range(a.shape[1]):
        first, second = (kernels.mind_descriptor(image[:, c, None], radius, dilation) for image in (a, b))
        parts.append(_mean((first - second).abs(), mask))
    return torch.stack(parts).mean()


def mse(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared difference."""
    return _mean((a - b).square(), mask)


SIMILARITIES: dict[str, Similarity] = {"ncc": ncc, "nmi": nmi, "mi": mi, "mind": mind, "mse": mse}


def across_modalities(similarity: Similarity) -> bool:
    """Whether a dissimilarity compares images of two modalities; one of one's own says so by that attribute."""
    measure = getattr(similarity, "func", similarity)
    return measure in (nmi, mi, mind) or bool(getattr(measure, "across_modalities", False))


def make_similarity(name: str, **options: float) -> Similarity:
    """Dissimilarity by name with its options set. Raises ValueError for an unknown name or an option out of range."""
    if name not in SIMILARITIES:
        raise ValueError(f"unknown similarity {name!r}; expected one of {', '.join(SIMILARITIES)}")
    window, bins = options.get("window", 3), options.get("bins", 5)
    if window % 2 == 0 or window < 3:
        raise ValueError(f"the window of {name} is odd and at least 3 voxels; got {window}")
    if bins < 5:
        raise ValueError(f"{name} needs at least 5 bins; got {bins}")
    return partial(SIMILARITIES[name], **options) if options else SIMILARITIES[name]


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over the batch of each image's mean under the mask."""
    if mask is None:
        # The gradient of a sum is one number, spread; kernels know it by that.
        return values.sum() / values.numel()
    weight = mask.to(values.dtype).expand(values.shape[0], 1, *values.shape[2:])
    totals = (values * weight).flatten(1).sum(dim=1) / values.shape[1]
    return (totals / weight.flatten(1).sum(dim=1).clamp_min(1e-6)).mean()


def _information(
    a: torch.Tensor, b: torch.Tensor, bins: int, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mutual information and the two entropies, (B,) each, in nats."""
    joint = kernels.joint_histogram((a + 1) / 2, (b + 1) / 2, bins, mask)
    entropy = _entropy(joint.flatten(1))
    entropy_a, entropy_b = _entropy(joint.sum(dim=2)), _entropy(joint.sum(dim=1))
    return entropy_a + entropy_b - entropy, entropy_a, entropy_b


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    return -(probabilities * probabilities.clamp_min(1e-10).log()).sum(dim=1)
