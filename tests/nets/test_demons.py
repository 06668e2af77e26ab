"""Demons' forces by hand, and a network that learns a registration from them."""

import pytest
import torch

from whence import kernels
from whence.nets import DemonsNet, demons_forces


def test_forces_of_a_ramp_are_the_shift():
    """Where images are linear and little apart, the force is the displacement that pulls one onto the other."""
    ramp = torch.arange(32.0)[:, None].expand(32, 8)[None, None] * 0.3
    # fixed(p) = moving(p + 0.1)
    found = demons_forces(ramp, ramp + 0.03)[0]
    assert found.shape == (2, 32, 8)
    assert torch.allclose(found[0], torch.full((32, 8), 0.1), atol=2e-3)
    assert float(found[1].abs().max()) < 1e-6


def test_forces_are_bounded_where_nothing_varies():
    flat = torch.zeros(1, 2, 6, 6, 6)
    assert torch.equal(demons_forces(flat, flat + 1), torch.zeros(1, 6, 6, 6, 6))
    noise = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    # |d g| / (|g|^2 + k d^2) is at most 1 / (2 sqrt(k)).
    assert float(demons_forces(noise, noise.roll(3, -1)).abs().max()) <= 0.5 / 0.1**0.5 + 1e-5


@pytest.mark.parametrize("shape", [(32, 48), (16, 16, 32)])
def test_it_starts_from_nothing_and_learns_a_motion_wider_than_its_forces(shape):
    torch.manual_seed(0)
    dims = len(shape)
    noise = torch.randn((2, 1, *shape), generator=torch.Generator().manual_seed(1))
    moving = kernels.gaussian(noise, 3.0)
    moving = moving / moving.std()
    velocity = torch.zeros(2, dims, *shape)
    velocity[:, 0] = torch.tensor([3.0, -3.0]).reshape(2, *[1] * dims)
    fixed = kernels.warp(moving, velocity)
    context = torch.zeros(2, 1, *shape)
    net = DemonsNet(dims, 1, 1, (8, 16), (4, 2, 1))
    assert shape[0] % net.multiple == 0
    assert float(net(moving, fixed, context).abs().max()) < 0.1
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        loss = (net(moving, fixed, context) - velocity).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.5 * float(velocity.abs().mean())
