"""A similarity that knows one voxel size goes from coarse to fine by its smoothing."""

import torch

from whence import kernels
from whence.field import Displacement, warp
from whence.losses import make_similarity
from whence.registration import DiffeomorphicSettings, register_diffeomorphic
from whence.registration.diffeomorphic import _levels
from whence.space import Grid, Volume


class OneSpacing:
    """Squared differences, asked at 2 mm alone."""

    spacing = 2.0

    def __init__(self):
        self.compare = make_similarity("mse")

    def __call__(self, *images):
        return self.compare(*images)


def test_stages_are_on_one_grid_and_narrow():
    grid = Grid.regular((64, 64), (1.0, 1.0))
    settings = DiffeomorphicSettings(levels=(8.0, 4.0, 2.0), iterations=(30, 0, 10))
    stages = _levels(grid, settings, 2.0)
    assert [(iterations, width) for _, iterations, width in stages] == [(30, 4.0), (10, 1.0)]
    assert {stage[0].shape for stage in stages} == {(32, 32)}


def test_a_wide_motion_is_found():
    grid = Grid.regular((96, 96), (2.0, 2.0))
    noise = torch.randn((1, 1, 96, 96), generator=torch.Generator().manual_seed(0))
    moving = Volume(kernels.gaussian(noise, 3.0) * 50, grid)
    here = kernels.identity((96, 96)) - 47.5
    bump = torch.exp(-here.square().sum(dim=1, keepdim=True) / (2 * 20.0**2))
    truth = Displacement(kernels.exp(bump * torch.tensor([6.0, -4.0]).reshape(1, 2, 1, 1)), grid)
    fixed = warp(moving, truth)
    found, _ = register_diffeomorphic(fixed, moving, OneSpacing(), DiffeomorphicSettings())
    inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    left = Displacement(found.tensor - truth.tensor, grid).magnitude()[inner].mean()
    assert float(left) < 0.25 * float(truth.magnitude()[inner].mean())
