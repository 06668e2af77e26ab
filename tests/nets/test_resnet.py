"""The ResNet generator: the published layers, 2D and 3D."""

import pytest
import torch

from whence.nets import ResNetGenerator


@pytest.mark.parametrize("shape", [(32, 24), (16, 12, 8)])
def test_shapes_and_range(shape):
    net = ResNetGenerator(len(shape), 2, 1, filters=4, blocks=2)
    image = net(torch.randn(2, 2, *shape))
    assert image.shape == (2, 1, *shape)
    assert float(image.abs().max()) <= 1
    image.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_published_size():
    """11.4 million weights, as the generator with 64 filters and 9 blocks is known to have."""
    count = sum(parameter.numel() for parameter in ResNetGenerator(2, 3, 3, 64, 9).parameters())
    assert abs(count - 11.4e6) < 0.1e6
