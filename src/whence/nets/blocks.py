"""Blocks of voxels as channels: what lets a network see an image at a coarser lattice and lose nothing of it."""

from __future__ import annotations

import torch


def in_blocks(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, C, *spatial) -> (B, C * patch^D, *spatial / patch), sides divisible by ``patch``."""
    if patch == 1:
        # Networks that see voxels need no MONAI.
        return images
    from monai.networks.utils import pixelunshuffle

    return pixelunshuffle(images, images.ndim - 2, patch)


def out_of_blocks(features: torch.Tensor, patch: int) -> torch.Tensor:
    """Features (B, C * patch^D, *spatial) -> (B, C, *spatial * patch): what undoes ``in_blocks``."""
    if patch == 1:
        return features
    from monai.networks.utils import pixelshuffle

    return pixelshuffle(features, features.ndim - 2, patch)
