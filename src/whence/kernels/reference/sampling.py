"""Sampling an image at voxel coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F

OUTSIDE = {"border": "border", "zeros": "zeros"}
MODES = {"linear": "bilinear", "nearest": "nearest"}


def identity(
    shape: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Voxel coordinates of every voxel of a lattice, (1, D, *shape)."""
    axes = [torch.arange(n, device=device, dtype=dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(
    image: torch.Tensor, coordinates: torch.Tensor, mode: str = "linear", outside: str = "border"
) -> torch.Tensor:
    """Values of an image (B, C, *spatial) at voxel coordinates (B, D, *out), as (B, C, *out).

    ``mode`` is ``linear`` or ``nearest``; ``outside`` says what lies beyond the outer voxel centres:
    ``border`` (the nearest voxel) or ``zeros``. Coordinates refer to voxel centres, so that an integer
    coordinate returns that voxel; one that is NaN returns NaN. A batch of one serves any batch of the other.
    """
    if mode not in MODES or outside not in OUTSIDE:
        raise ValueError(
            f"expected mode in {sorted(MODES)} and outside in {sorted(OUTSIDE)}; got {mode!r} and {outside!r}"
        )
    spatial = image.shape[2:]
    dims = len(spatial)
    if coordinates.shape[1] != dims:
        raise ValueError(
            f"an image {tuple(image.shape)} is sampled at (B, {dims}, *out); got {tuple(coordinates.shape)}"
        )
    batch = max(image.shape[0], coordinates.shape[0])
    out = coordinates.shape[2:]
    # grid_sample wants as many output axes as the image has, the last coordinate first, in [-1, 1].
    flat = coordinates if len(out) == dims else coordinates.reshape(*coordinates.shape[:2], -1, *[1] * (dims - 1))
    # grid_sample reads foreign memory at a NaN or an infinity; beyond the clamp nothing changes any more.
    unknown = flat.isnan().any(dim=1, keepdim=True)
    known = flat.masked_fill(unknown, 0)
    scale = [2.0 / max(n - 1, 1) for n in spatial]
    axes = [known[:, d].clamp(-2, spatial[d] + 1) for d in range(dims)]
    parts = [axes[d] * scale[d] - 1 if spatial[d] > 1 else axes[d] for d in reversed(range(dims))]
    grid = torch.stack(parts, dim=-1).expand(batch, *[-1] * (dims + 1))
    values = F.grid_sample(
        image.expand(batch, *[-1] * (dims + 1)),
        grid.to(image.dtype),
        mode=MODES[mode],
        padding_mode=OUTSIDE[outside],
        align_corners=True,
    )
    if outside == "zeros" and 1 in spatial:
        presence = _presence(known, spatial, mode).to(values.dtype)
        values = torch.where(presence > 0, values * presence, 0)
    values = values.masked_fill(unknown, torch.nan)
    return values.reshape(batch, image.shape[1], *out)


def _presence(coordinates: torch.Tensor, spatial: torch.Size, mode: str) -> torch.Tensor:
    """How much of a sample lies on axes of one voxel, (B, 1, *out), where [-1, 1] has no length for grid_sample."""
    weight = torch.ones_like(coordinates[:, :1])
    for axis in (d for d, n in enumerate(spatial) if n == 1):
        away = coordinates[:, axis : axis + 1].abs()
        weight = weight * ((1 - away).clamp_min(0) if mode == "linear" else (away <= 0.5).to(weight.dtype))
    return weight


def warp(
    image: torch.Tensor, displacement: torch.Tensor, mode: str = "linear", outside: str = "border"
) -> torch.Tensor:
    """moved(p) = image(p + u(p)) for an image and a displacement on one lattice."""
    if image.shape[2:] != displacement.shape[2:]:
        raise ValueError(
            f"image {tuple(image.shape)} and displacement {tuple(displacement.shape)} are not on one lattice"
        )
    here = identity(tuple(displacement.shape[2:]), displacement.device, displacement.dtype)
    return sample(image, here + displacement, mode, outside)
