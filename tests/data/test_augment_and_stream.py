"""Augmentation keeps correspondences; batches follow from the step alone."""

import pytest
import torch

from whence.data import Augmentation
from whence.train.stream import StepSampler, step_generator


def batch(dims=2, count=16):
    image = torch.rand(count, 1, *(6, 5, 4)[:dims], generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"source": image, "target": image.clone(), "registered": image.clone()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_flip_is_one_for_all_images_of_a_sample(dims):
    before = batch(dims)
    after = Augmentation(flip=True, gamma=0, noise=0)(before, generator())
    assert torch.equal(after["source"], after["target"])
    assert torch.equal(after["source"], after["registered"])
    flipped = [bool(torch.equal(a, b.flip(1))) for a, b in zip(after["source"], before["source"], strict=True)]
    kept = [bool(torch.equal(a, b)) for a, b in zip(after["source"], before["source"], strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 0 < sum(flipped) < 16


def test_intensity_changes_the_source_alone_and_stays_in_range():
    before = batch()
    after = Augmentation(flip=False, gamma=0.5, noise=0.1)(before, generator())
    assert torch.equal(after["target"], before["target"])
    assert torch.equal(after["registered"], before["registered"])
    assert not torch.equal(after["source"], before["source"])
    assert float(after["source"].abs().max()) <= 1
    # Contrast alone is monotone: the order of the voxels stays.
    bent = Augmentation(flip=False, gamma=0.5, noise=0)(before, generator())["source"]
    for a, b in zip(bent, before["source"], strict=True):
        assert torch.equal(a.flatten().argsort(), b.flatten().argsort())
    assert torch.equal(before["source"], batch()["source"])


def test_nothing_asked_nothing_changed():
    before = batch()
    after = Augmentation(flip=False, gamma=0, noise=0)(before, generator())
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_same_generator_gives_the_same_batch():
    augment = Augmentation()
    first, again, other = (augment(batch(), generator(seed))["source"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_epoch_holds_every_sample_once():
    flat = [i for b in StepSampler(7, 3, seed=0, start=0, stop=14) for i in b]
    assert len(flat) == 42
    epochs = [flat[k : k + 7] for k in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_later_start_sees_the_same_batches():
    whole = list(StepSampler(7, 3, seed=5, start=0, stop=20))
    assert list(StepSampler(7, 3, seed=5, start=11, stop=20)) == whole[11:]
    assert len(StepSampler(7, 3, seed=5, start=11, stop=20)) == 9
    assert list(StepSampler(7, 3, seed=6, start=0, stop=20)) != whole


def test_processes_share_an_epoch():
    parts = [list(StepSampler(24, 2, seed=0, start=0, stop=4, rank=rank, world=3)) for rank in range(3)]
    seen = [i for part in parts for b in part for i in b]
    assert sorted(seen) == list(range(24))
    # Together they see what one process with their joint batch would.
    alone = list(StepSampler(24, 6, seed=0, start=0, stop=4))
    assert [[i for part in parts for i in part[step]] for step in range(4)] == alone


def test_a_batch_may_exceed_the_data():
    batches = list(StepSampler(2, 5, seed=0, start=0, stop=3))
    assert all(len(b) == 5 and set(b) == {0, 1} for b in batches)


def test_step_generators_differ():
    draws = {
        float(torch.rand(1, generator=step_generator(seed, step, rank)))
        for seed in (0, 1, -1)
        for step in range(20)
        for rank in range(3)
    }
    assert len(draws) == 180
