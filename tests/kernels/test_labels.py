"""Labels by the vote of neighbours: against the masks of linear interpolation, and both versions against each other."""

import math

import pytest
import torch

from whence import kernels
from whence.kernels.reference import labels as reference

SHAPES = [(9, 12), (1, 7), (6, 8, 7), (5, 1, 6)]
VERSIONS = {"fused": kernels.sample_labels, "reference": reference.sample_labels}


def made(shape, batch=2, channels=1):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (batch, channels, *shape), generator=generator, dtype=torch.int32)
    here = kernels.identity(shape) + 2.5 * torch.randn(batch, len(shape), *shape, generator=generator)
    return labels, here


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("outside", ["border", "zeros"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_greatest_of_all_masks(version, outside, shape):
    labels, points = made(shape, channels=2)
    found = VERSIONS[version](labels, points, outside)
    assert found.dtype == labels.dtype
    names = torch.arange(5).reshape(5, 1, 1, *[1] * len(shape))
    shares = torch.stack([kernels.sample((labels == n).float(), points, "linear", outside) for n in names])
    if outside == "zeros":
        # What lies beyond counts for the background.
        shares[0] += 1 - shares.sum(dim=0)
    most, second = shares.topk(2, dim=0).values
    clear = most - second > 1e-4
    assert clear.float().mean() > 0.8
    assert torch.equal(found[clear].long(), shares.argmax(dim=0)[clear])


@pytest.mark.parametrize("outside", ["border", "zeros"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fused_is_the_reference(outside, shape):
    labels, points = made(shape)
    ours, plain = (version(labels, points, outside) for version in VERSIONS.values())
    assert (ours != plain).float().mean() < 0.01
    listed = points.flatten(2)[..., :20]
    assert torch.equal(kernels.sample_labels(labels, listed, outside), ours.flatten(2)[..., :20])
    strided = labels.flip(-1).contiguous().flip(-1).transpose(0, 1).transpose(0, 1)
    assert torch.equal(kernels.sample_labels(strided, points, outside), ours)
    assert torch.equal(kernels.sample_labels(labels[:1], points, outside)[:1], ours[:1])


@pytest.mark.parametrize("version", VERSIONS)
def test_voxels_themselves_and_what_is_unknown(version):
    labels = torch.tensor([[0, 2**40, 3], [4, 4, -1]])[None, None]
    here = kernels.identity((2, 3))
    assert torch.equal(VERSIONS[version](labels, here), labels)
    points = torch.tensor([[math.nan, 1.0], [0.0, math.inf], [-9.0, 5.0], [0.5, 1.1], [-0.4, 0.9], [-0.6, 0.9]])
    ask = points.T[None]
    assert VERSIONS[version](labels, ask)[0, 0].tolist() == [0, 3, 3, 2**40, 2**40, 2**40]
    assert VERSIONS[version](labels, ask, "zeros")[0, 0].tolist() == [0, 0, 0, 2**40, 2**40, 0]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_label(version):
    with pytest.raises(ValueError, match="integer labels"):
        VERSIONS[version](torch.zeros(1, 1, 4, 4), kernels.identity((4, 4)))
    with pytest.raises(ValueError, match="integer labels"):
        VERSIONS[version](torch.zeros(1, 1, 4, 4, dtype=torch.int64), torch.zeros(1, 3, 5))
