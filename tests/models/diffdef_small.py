"""A small Diff-Def and what it learns from."""

import torch

from whence.models.attributes import Attributes
from whence.models.diffdef import DiffDef
from whence.models.diffdef_config import DiffDefConfig

SMALL = {
    "vae_features": (8, 16),
    "features": (16, 32),
    "blocks": 1,
    "attention": 1,
    "width": 16,
    "vae_steps": 1,
    "registration_steps": 1,
    "down": (8, 16),
    "up": (16, 8),
    "neighbours": 2,
    "solver_steps": 3,
    "squarings": 5,
}
KNOWN = Attributes(("age",), {"age": (50.0, 20.0)}, {})
SHAPES = [(32, 24), (16, 16, 16)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net_of(dims, seed=0, **options):
    torch.manual_seed(seed)
    return DiffDef(DiffDefConfig(**{**SMALL, **options}), dims, 1, 1, attributes=KNOWN)


def batch_of(shape, count=2):
    dims = len(shape)
    images = torch.rand((count, 5, *shape), generator=generator(1)) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d if dims == 2 else torch.nn.functional.avg_pool3d
    images = 3 * smooth(images, 5, 1, 2)
    return {
        "source": images[:, :1],
        "target": images[:, 1:2],
        "near_target": images[:, 2:4],
        "near_index": torch.tensor([[3, 1], [1, 4]])[:count],
        "conditions": torch.tensor([[-1.0], [float("nan")]])[:count],
    }
