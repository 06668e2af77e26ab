"""Random spatial transforms: their size by the protocol, the same from the same generator, 2D and 3D."""

import math

import numpy as np
import pytest
import torch

from whence import kernels
from whence.data.perturbation import Perturbation, after_affine


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(48, 40), (24, 20, 28)])
def test_affine_alone_is_affine_and_within_the_protocol(shape):
    dims = len(shape)
    protocol = Perturbation(elastic=0.0)
    maps = protocol.affine(200, shape, generator())
    half = (torch.tensor(shape) - 1) / 2
    assert float((maps[:, :, -1].abs() / half).max()) <= 0.08
    scales = torch.linalg.svdvals(maps[:, :, :-1])
    assert 0.92 - 1e-5 <= float(scales.min()) < 0.94
    assert 1.06 < float(scales.max()) <= 1.08 + 1e-5
    if dims == 2:
        angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).abs()
        assert math.radians(2.5) < float(angle.max()) <= math.radians(3) + 1e-5
    field = protocol.draw(2, shape, generator(3))
    again = protocol.affine(2, shape, generator(3))
    corner = field[1].reshape(dims, -1)[:, 0].numpy()
    expected = again[1, :, :dims].numpy() @ -half.numpy() + again[1, :, dims].numpy() + half.numpy()
    assert np.allclose(corner, expected, atol=1e-4)
    second = [field.diff(n=2, dim=axis).abs().max() for axis in range(2, field.ndim)]
    assert float(max(second)) < 1e-4


def test_elastic_strength_is_the_protocols():
    """120 before a Gaussian of 12 at 240 pixels leaves 120 / sqrt(3) / (2 sqrt(pi) 12) = 1.63 pixels."""
    field = Perturbation().bend(6, (240, 240), generator())
    assert float(field.std()) == pytest.approx(1.63, rel=0.1)
    # Half the side, half the pixels; the border bends as the middle does.
    small = Perturbation().bend(24, (120, 120), generator(1))
    assert float(small.std()) == pytest.approx(0.815, rel=0.1)
    assert float(small[:, :, :8].std()) == pytest.approx(0.815, rel=0.2)
    volume = Perturbation().bend(4, (48, 48, 48), generator(2))
    assert float(volume.std()) == pytest.approx(1.63 * 48 / 240, rel=0.15)


def test_the_affine_comes_after_the_bend():
    bend = Perturbation().bend(1, (32, 32), generator())
    shift = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]])
    moved = after_affine(shift, bend)
    assert torch.allclose(moved - bend, torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand_as(bend), atol=1e-5)


def test_no_draw_folds_and_the_generator_decides():
    fields = Perturbation().draw(8, (96, 96), generator())
    assert float(kernels.jacobian_determinant(fields).min()) > 0
    assert torch.equal(fields, Perturbation().draw(8, (96, 96), generator()))


def test_refusals():
    with pytest.raises(ValueError, match="rotation must not be negative"):
        Perturbation(rotation=-1)
    with pytest.raises(ValueError, match="expected scaling below"):
        Perturbation(scaling=0.95)
