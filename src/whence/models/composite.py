"""A past case's outcome on a new patient: what a retrieved pair of images shows of an operation to come."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from whence import kernels


def bounding_box(mask: torch.Tensor) -> torch.Tensor:
    """1 within the smallest box that holds a mask (B, 1, *spatial), not 0 where it is; 0 all over where it is empty."""
    inside = mask != 0
    box = torch.ones_like(inside)
    axes = range(2, mask.ndim)
    for axis in axes:
        others = [other for other in axes if other != axis]
        line = inside.amax(dim=others, keepdim=True) if others else inside
        after = line.flip(axis).cumsum(axis).flip(axis) > 0
        box = box & (line.cumsum(axis) > 0) & after
    return box.to(mask.dtype)


def composite(query: torch.Tensor, outcome: torch.Tensor, cavity: torch.Tensor) -> torch.Tensor:
    """Q_comp = M I_post + (1 - M) Q_pre: the box of a past case's resection, pasted on the query's image.

    Images (B, C, *spatial), ``cavity`` (B, 1, *spatial). Pre-to-Post Operative MRI Generation, section on the prompt
    adapter.
    """
    box = bounding_box(cavity)
    return box * outcome + (1 - box) * query


def planned(query: torch.Tensor, outcome: torch.Tensor, cavity: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    """The composite of a planned resection: what a past case's cavity looks like, within the plan and no further.

    The box of the cavity is stretched over the plan's; where it holds no cavity the cavity's mean stands in, and -1,
    the darkest, of a case without one. Images (B, C, *spatial) in [-1, 1], masks (B, 1, *spatial), not 0 where they
    are. Ours.
    """
    dims = tuple(range(2, query.ndim))
    inside = (cavity != 0).to(query)
    size = inside.sum(dim=dims, keepdim=True)
    level = torch.where(size > 0, (outcome * inside).sum(dim=dims, keepdim=True) / size.clamp_min(1), -1.0)
    places = torch.stack([_stretched(c != 0, p != 0) for c, p in zip(cavity[:, 0], plan[:, 0], strict=True)])
    # Of the cavity alone: between voxels its edge would hold what is beside it.
    shown, there = (kernels.sample(part, places.to(query), "linear", "border") for part in (outcome * inside, inside))
    cavity = torch.where(there >= 0.5, shown / there.clamp_min(0.5), level)
    return torch.where(plan != 0, cavity, query)


def _stretched(cavity: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    """Coordinates (D, *spatial) in voxels that carry the box of a plan (*spatial) onto that of a cavity."""
    axes = [torch.arange(n, dtype=torch.float32, device=plan.device) for n in plan.shape]
    found = []
    for axis, line in enumerate(axes):
        (here, size), (there, other) = (_span(mask, axis) for mask in (plan, cavity))
        found.append(there + (line - here + 0.5) * (other / size) - 0.5)
    return torch.stack(torch.meshgrid(*found, indexing="ij"))


def _span(mask: torch.Tensor, axis: int) -> tuple[float, float]:
    """First place of a mask (*spatial) along an axis, and its length; those of the whole where it is empty."""
    others = [other for other in range(mask.ndim) if other != axis]
    places = mask.amax(dim=others).nonzero()
    if not len(places):
        return 0.0, float(mask.shape[axis])
    return float(places[0]), float(places[-1] - places[0] + 1)


def in_context(before: torch.Tensor, after: torch.Tensor, query: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """The grid of visual in-context learning (B, C, 2 h, 2 w): a past case above, the query and its outcome below."""
    return torch.cat([torch.cat([before, after], dim=3), torch.cat([query, cell], dim=3)], dim=2)


def cell_of(grid: torch.Tensor) -> torch.Tensor:
    """The cell (B, C, h, w) of the query's outcome in such a grid."""
    height, width = grid.shape[2] // 2, grid.shape[3] // 2
    return grid[..., height:, width:]


def beside_neighbours(slices: torch.Tensor, weight: float, places: torch.Tensor | None = None) -> torch.Tensor:
    """Slices (B, ...) in their order, each with ``weight`` of the one before and the one after; ends repeat themselves.

    ``places`` (B,) numbers them where some between are missing: what is not next to a slice is no neighbour. Ours.
    """
    own = torch.arange(len(slices), device=slices.device)
    next_to = torch.ones_like(own[1:]) if places is None else (places.diff() == 1).to(own)
    before, after = own - F.pad(next_to, (1, 0)), own + F.pad(next_to, (0, 1))
    return (1 - 2 * weight) * slices + weight * (slices[before] + slices[after])
