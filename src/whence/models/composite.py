"""A past case's outcome on a new patient: what a retrieved pair of images shows of an operation to come."""

from __future__ import annotations

import torch


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


def in_context(before: torch.Tensor, after: torch.Tensor, query: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """The grid of visual in-context learning (B, C, 2 h, 2 w): a past case above, the query and its outcome below."""
    return torch.cat([torch.cat([before, after], dim=3), torch.cat([query, cell], dim=3)], dim=2)


def cell_of(grid: torch.Tensor) -> torch.Tensor:
    """The cell (B, C, h, w) of the query's outcome in such a grid."""
    height, width = grid.shape[2] // 2, grid.shape[3] // 2
    return grid[..., height:, width:]
