"""Convolutions of one volume: torch's own answer and gradients, by a faster way."""

import pytest
import torch
from torch import nn

from whence.nets.convolution import Conv3d, for_one_volume


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2, "bias": False},
        {"padding": "same"},
        {"padding": (0, 1, 2), "dilation": (1, 1, 2)},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": 1, "groups": 4},
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_torch_says_the_same(options, count):
    torch.manual_seed(0)
    theirs = nn.Conv3d(8, 12, 3, **options)
    ours = Conv3d(8, 12, 3, **options)
    ours.load_state_dict(theirs.state_dict())
    found = []
    for layer in (theirs, ours):
        image = torch.rand((count, 8, 9, 10, 11), generator=torch.Generator().manual_seed(1)).requires_grad_()
        answer = layer(image)
        (answer * torch.linspace(0, 1, answer.numel()).reshape(answer.shape)).sum().backward()
        found.append((answer.detach(), image.grad, layer.weight.grad))
    for a, b in zip(*found, strict=True):
        # Sums of 216 products in another order.
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3 * float(a.abs().max()))


def test_what_it_takes_over_and_what_not():
    layer = Conv3d(2, 2, 3, padding=1)
    image = torch.rand(1, 2, 8, 8, 8)
    assert layer._passed_over(image)
    assert not layer._passed_over(image.expand(2, -1, -1, -1, -1))
    assert not layer._passed_over(image.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer._passed_over(image)
        assert layer(image).dtype == torch.bfloat16


def test_a_stranger_s_module_is_changed_in_place():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv3d(4, 1, 1)))
    image = torch.rand(1, 1, 8, 8, 8)
    before, names = net(image), list(net.state_dict())
    assert for_one_volume(net) is net
    assert [type(part) for part in net.modules()].count(Conv3d) == 2
    assert list(net.state_dict()) == names
    assert torch.allclose(net(image), before, atol=1e-5)
