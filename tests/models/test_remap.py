"""Shuffle Remap and Bezier remapping: bijections of segments, linear within, every voxel mapped."""

import pytest
import torch

from whence.models.remap import apply_shuffle, bezier_remap, conditional_mean, draw_shuffle, shuffle_remap


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_the_document(image, ends, order):
    """Algorithm 1, segment after segment, as written there; the value 1 joins the last segment."""
    new = torch.full_like(image, float("nan"))
    for i, target in enumerate(order):
        low, high = ends[i], ends[i + 1]
        to_low, to_high = ends[target], ends[target + 1]
        here = (low <= image) & ((image < high) | ((i == len(order) - 1) & (image == high)))
        new[here] = (image[here] - low) / (high - low) * (to_high - to_low) + to_low
    return new


@pytest.mark.parametrize("shape", [(3, 2, 17, 19), (2, 1, 9, 8, 7)])
def test_as_the_documents_loop_has_it(shape):
    image = 2 * torch.rand(shape, generator=generator(1)) - 1
    image.view(-1)[:4] = torch.tensor([-1.0, 1.0, 0.0, 1.0])
    ends, order, cuts = draw_shuffle(shape[0] * shape[1], generator(2), (2, 9))
    found = apply_shuffle(image, ends, order, cuts).reshape(len(ends), -1)
    for row, values in enumerate(image.reshape(len(ends), -1)):
        count = int(cuts[row])
        expected = by_the_document(values, [*ends[row, : count + 1].tolist(), 1.0], order[row, : count + 1].tolist())
        assert not expected.isnan().any()
        # float32 against the same in doubles of Python, over segments that may be narrow
        assert torch.allclose(found[row], expected, atol=1e-4)


def test_segments_are_permuted_among_themselves():
    ends, order, cuts = draw_shuffle(200, generator(), (1, 12))
    assert ((cuts >= 1) & (cuts <= 12)).all()
    assert len(cuts.unique()) == 12
    assert (ends.diff(dim=1) >= 0).all()
    assert torch.equal(order.sort(dim=1).values, torch.arange(13).expand(200, -1))
    for row, count in zip(order, cuts.tolist(), strict=True):
        assert sorted(row[: count + 1].tolist()) == list(range(count + 1))
        assert row[count + 1 :].tolist() == list(range(count + 1, 13))


def test_linear_within_a_segment_and_onto_the_whole_of_another():
    ends, order, cuts = draw_shuffle(1, generator(5), (4, 4))
    for i in range(5):
        low, high = ends[0, i].item(), ends[0, i + 1].item()
        inner = torch.linspace(low, high, 102)[:-1].reshape(1, 1, -1)
        found = apply_shuffle(inner, ends, order, cuts).flatten()
        j = int(order[0, i])
        expected = torch.linspace(float(ends[0, j]), float(ends[0, j + 1]), 102)[:-1]
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("remap", [shuffle_remap, bezier_remap])
def test_every_voxel_is_mapped_into_the_range(remap):
    image = torch.linspace(-1, 1, 2000).reshape(1, 1, 40, 50).expand(6, 1, 40, 50).clone()
    image[:, :, :5] = 1.0
    image[:, :, -5:] = -1.0
    found = remap(image, generator(3))
    assert torch.isfinite(found).all()
    assert float(found.min()) >= -1
    assert float(found.max()) <= 1
    # one map an image: equal voxels stay equal, and images get maps of their own
    assert (found[:, :, :5].flatten(1) == found[:, 0, 0, :1]).all()
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("remap", [shuffle_remap, bezier_remap])
def test_the_generator_alone_decides(remap):
    image = 2 * torch.rand((2, 1, 12, 12), generator=generator(1)) - 1
    torch.manual_seed(1)
    first = remap(image, generator(7))
    torch.manual_seed(2)
    assert torch.equal(first, remap(image, generator(7)))
    assert not torch.equal(first, remap(image, generator(8)))


def test_a_bezier_curve_is_monotone_and_keeps_the_ends():
    ramp = torch.linspace(-1, 1, 400).reshape(1, 1, 400).expand(40, 1, 400)
    found = bezier_remap(ramp, generator(2))[:, 0]
    rises = found[:, -1] > found[:, 0]
    assert 5 < int(rises.sum()) < 35
    steps = torch.where(rises[:, None], found.diff(dim=1), -found.diff(dim=1))
    assert float(steps.min()) >= -1e-6
    assert torch.allclose(found[:, [0, -1]].sort(dim=1).values, torch.tensor([-1.0, 1.0]).expand(40, -1), atol=1e-4)


def test_the_conditional_mean_is_the_map_between_contrasts():
    levels = torch.tensor([-1.0, -0.6, 0.1, 0.5, 1.0])
    labels = torch.randint(0, 5, (2, 1, 30, 30), generator=generator(4))
    image, reference = levels[labels].requires_grad_(), levels[torch.tensor([3, 0, 4, 1, 2])][labels]
    found = conditional_mean(image, reference)
    # levels lie between bins of 2 / 47, and no two tissues share a bin
    assert torch.allclose(found, reference, atol=1e-3)
    half = torch.where(torch.rand(labels.shape, generator=generator(5)) < 0.5, reference, -reference)
    mixed = conditional_mean(image, half)
    for label in range(5):
        here = labels[0] == label
        assert torch.allclose(mixed[0][here], half[0][here].mean().expand(int(here.sum())), atol=1e-3)
    found.sum().backward()
    assert image.grad is not None
