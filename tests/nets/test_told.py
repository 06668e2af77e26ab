"""What a vector does to a level's features: scales, shifts, and learnt maps over the frame."""

import pytest
import torch

from whence.nets.autoencoder import Told
from whence.nets.tokens import AttributeTokens


def along(axis, points, dims):
    """From 0 to 1 along an axis."""
    return torch.linspace(0, 1, points).reshape([points if n == axis else 1 for n in range(dims)])


@pytest.mark.parametrize("shape", [(12, 20), (8, 10, 6)])
def test_it_begins_with_nothing_and_learns_where(shape):
    torch.manual_seed(0)
    told, features = Told(len(shape), 5, 3, maps=2, side=4), torch.randn(2, 3, *shape)
    vector = torch.tensor([[1.0, 0, 0, 0, 0], [0.0, 1, 0, 0, 0]])
    torch.testing.assert_close(told(features, vector), features)
    # A ramp along the first axis, one along the last: each sample is given one of them, from corner to corner.
    axes = (0, len(shape) - 1)
    ramps = [along(axis, 4, len(shape)) for axis in axes]
    with torch.no_grad():
        told.maps.copy_(torch.stack([ramp.expand(3, *[4] * len(shape)) for ramp in ramps]))
        told.read.weight[-2:, :2] = torch.eye(2)
        moved = told(features, vector) - features
    for n, axis in enumerate(axes):
        wanted = along(axis, shape[axis], len(shape)).expand(3, *shape)
        torch.testing.assert_close(moved[n], wanted, atol=1e-6, rtol=0)


def test_it_is_learnt_from_nothing():
    torch.manual_seed(0)
    told, features, vector = Told(2, 5, 3, maps=2), torch.zeros(2, 3, 24, 16), torch.randn(2, 5)
    wanted = torch.linspace(0, 1, 24).reshape(1, 1, -1, 1) * vector[:, :1, None, None]
    optimizer = torch.optim.Adam(told.parameters(), lr=0.01)
    for _ in range(200):
        loss = (told(features, vector) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Scales and shifts alone, which know no place, leave the variance along the ramp.
    assert float(loss.detach()) < 0.02 * float((wanted - wanted.mean(dim=2, keepdim=True)).square().mean())


def test_how_vectors_differ_is_learnt_with_their_mean():
    torch.manual_seed(0)
    tokens, told = AttributeTokens([0], 16), Told(2, 16, 2, maps=4, side=4)
    numbers = torch.linspace(-1.7, 1.7, 9)[:, None]
    mean, slope = torch.randn(2, 1, 2, 4, 4)
    wanted = mean + numbers[..., None, None] * slope
    optimizer = torch.optim.Adam([*tokens.parameters(), *told.parameters()], lr=0.01)
    for _ in range(25):
        answer = told(torch.zeros_like(wanted), tokens(numbers)[:, 0])
        loss = (answer - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The mean alone leaves all of this; maps and weights that both began near 0 left 0.4 to 0.9, these 0.05 to 0.08.
    assert float(loss.detach()) < 0.2 * float((numbers * numbers).mean() * slope.square().mean())
