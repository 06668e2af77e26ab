"""What a latent diffusion of slices is told beside its latents: masks, composites, and where its answer counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.nn import functional as F

from whence.models.composite import composite, in_context, planned

# Slices of a volume that are computed at a time.
SLICES = 8
MASKS = ("case_source_mask", "case_target_cavity", "source_mask", "resection_mask")


def mask_grid(batch: Mapping[str, torch.Tensor], known: Sequence[torch.Tensor | bool], shrinks: int) -> torch.Tensor:
    """The grid of masks (B, f^2, 2 h, 2 w) of ``MASKS``, each latent's f x f voxels as channels.

    ``known`` says of each, for all or by sample (B, 1, 1, 1), whether it is; -1 stands where nothing is known.
    """
    parts = [F.pixel_unshuffle(only_known(batch[name], told), shrinks) for name, told in zip(MASKS, known, strict=True)]
    return in_context(*parts)


def only_known(mask: torch.Tensor, known: torch.Tensor | bool) -> torch.Tensor:
    """A mask (B, 1, H, W), -1 where it is not known."""
    return torch.where(torch.as_tensor(known, device=mask.device), mask, -1.0)


def told_composite(batch: Mapping[str, torch.Tensor], told: torch.Tensor) -> torch.Tensor:
    """The composite of each sample: the document's, or that of the plan where it is ``told`` (B, 1, 1, 1)."""
    pasted = (batch["source"], batch["case_target"], batch["case_target_cavity"])
    found = composite(*pasted)
    return torch.where(told, planned(*pasted, batch["resection_mask"]), found) if bool(told.any()) else found


def focus(batch: Mapping[str, torch.Tensor], shape: Sequence[int], shrinks: int, weight: float) -> torch.Tensor:
    """How much each place counts (B, 1, *shape), 1 in the mean: ``weight`` times as much where the operation is."""
    there = torch.maximum(batch["source_mask"], batch["target_cavity"])
    near = F.max_pool2d(F.adaptive_max_pool2d(there, [n // shrinks for n in there.shape[2:]]), 3, 1, 1)
    weights = F.interpolate(1 + (weight - 1) * near, size=list(shape), mode="nearest")
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def some(batch: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """A batch, some slices at a time."""
    parts = zip(*(part.split(SLICES) for part in batch.values()), strict=True)
    return (dict(zip(batch, part, strict=True)) for part in parts)


def part_of(mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The part of each mask (B, 1, H, W) on one side of a line: from three tenths to eight tenths of it."""
    found = torch.zeros_like(mask)
    for part, whole in zip(found[:, 0], mask[:, 0], strict=True):
        angle, share = torch.rand(2, generator=generator).tolist()
        places = (whole != 0).nonzero()
        if len(places):
            turn = 2 * math.pi * angle
            along = places[:, 0] * math.cos(turn) + places[:, 1] * math.sin(turn)
            part[tuple(places[along <= along.quantile(0.3 + 0.5 * share)].T)] = 1
    return found


def cut_otherwise(batch: Mapping[str, torch.Tensor], plan: torch.Tensor) -> torch.Tensor:
    """What the outcome might have been (B, C, H, W) had ``plan`` (B, 1, H, W) been cut out.

    The true outcome with its own cavity stretched over the plan; where it was cut and is not to be, the scan.
    """
    cavity, target = batch["target_cavity"], batch["target"]
    return planned(torch.where(cavity != 0, batch["source"], target), target, cavity, plan)
