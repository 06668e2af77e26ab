"""The registration U-Net: the published features, 2D and 3D, sizes that halve."""

import pytest
import torch

from whence.nets import RegistrationUNet


@pytest.mark.parametrize("shape", [(32, 48), (16, 32, 16)])
def test_features_at_full_resolution(shape):
    net = RegistrationUNet(len(shape), 2, (16, 32, 32, 32, 32), (32, 32, 32, 32, 16, 16))
    assert net.multiple == 16
    assert net(torch.randn(1, 2, *shape)).shape == (1, 16, *shape)


def test_features_that_do_not_meet():
    with pytest.raises(ValueError, match="two levels down and one more up"):
        RegistrationUNet(2, 2, (8, 8, 8), (8, 8))
