"""Sampling labels, which have no values in between."""

from __future__ import annotations

from itertools import product

import torch

from whence.kernels.reference.sampling import OUTSIDE

# Points taken at once: eight labels and weights of each are held.
_BLOCK = 2**18


def sample_labels(labels: torch.Tensor, coordinates: torch.Tensor, outside: str = "border") -> torch.Tensor:
    """The label with the greatest weight among the voxels around each point, those of linear interpolation.

    Integer labels (B, C, *spatial) at voxel coordinates (B, D, *out), as (B, C, *out) of the labels' type. It is what
    the largest of all labels' linearly interpolated masks would say, and smoother than the nearest voxel's label.
    Of labels with one weight that of the lower corner is taken. Beyond the outer voxel centres lies the
    nearest voxel for ``border`` and label 0 for ``zeros``; at a coordinate that is NaN label 0.
    """
    spatial, dims = labels.shape[2:], labels.ndim - 2
    if outside not in OUTSIDE or coordinates.shape[1] != dims or labels.is_floating_point():
        raise ValueError(
            f"integer labels are sampled at (B, {dims}, *out), outside in {sorted(OUTSIDE)}; got {labels.dtype}, "
            f"{tuple(coordinates.shape)} and {outside!r}"
        )
    batch, out = max(labels.shape[0], coordinates.shape[0]), coordinates.shape[2:]
    volumes = labels.expand(batch, *labels.shape[1:]).flatten(2)
    points = coordinates.expand(batch, *coordinates.shape[1:]).flatten(2)
    result = volumes.new_empty((*volumes.shape[:2], points.shape[2]))
    for begin in range(0, points.shape[2], _BLOCK):
        part = points[..., begin : begin + _BLOCK]
        places, weights, known = _corners(part, spatial, outside)
        for channel in range(labels.shape[1]):
            found = torch.gather(volumes[:, channel, None].expand(-1, len(places[0]), -1), 2, places)
            if outside == "zeros":
                found = found * known
            same = found[:, :, None] == found[:, None]
            votes = (same * weights[:, None]).sum(dim=2)
            best = votes.argmax(dim=1, keepdim=True)
            winner = torch.gather(found, 1, best)[:, 0]
            result[:, channel, begin : begin + _BLOCK] = winner * ~part.isnan().any(dim=1)
    return result.reshape(batch, labels.shape[1], *out)


def _corners(
    points: torch.Tensor, spatial: torch.Size, outside: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The 2^D voxels around points (B, D, N): flat index, weight, and whether they lie inside, (B, 2^D, N)."""
    sizes = points.new_tensor(spatial)[:, None]
    # Beyond these nothing changes any more, and an infinity would be no index.
    limits = (0 * sizes, sizes - 1) if outside == "border" else (0 * sizes - 2, sizes + 1)
    points = points.nan_to_num(0.0).clamp(*limits)
    low = points.floor()
    upper = points - low
    places, weights, known = [], [], []
    for corner in product((0, 1), repeat=len(spatial)):
        step = points.new_tensor(corner)[:, None]
        at = low + step
        inside = ((at >= 0) & (at < sizes)).all(dim=1)
        flat = torch.zeros_like(inside, dtype=torch.int64)
        for axis, n in enumerate(spatial):
            flat = flat * n + at[:, axis].clamp(0, n - 1).long()
        places.append(flat)
        weights.append(torch.where(step > 0, upper, 1 - upper).prod(dim=1))
        known.append(inside)
    return torch.stack(places, 1), torch.stack(weights, 1), torch.stack(known, 1)
