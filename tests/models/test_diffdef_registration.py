"""Diff-Def's registration network, and the terms that it gives the field: morphology and anchor."""

import pytest
import torch
from diffdef_small import KNOWN, SHAPES, SMALL, batch_of, generator, net_of

from whence import kernels
from whence.models.anchor import MATCHING_SIGMA, Kept, _match_intensity
from whence.models.diffdef import DiffDef
from whence.models.diffdef_config import DiffDefConfig


@pytest.mark.parametrize("shape", SHAPES)
def test_the_registration_network_learns_in_windows_of_its_volumes(shape):
    net, batch = net_of(len(shape), registration_window=7), batch_of(shape)
    places = set()
    for seed in range(4):
        batch["near_target"] = batch["near_target"].detach().requires_grad_(True)
        net._registered(batch, generator(seed))["similarity"].backward()
        seen = batch["near_target"].grad[:, 0].abs().sum(dim=0).nonzero()
        first, last = seen.amin(dim=0), seen.amax(dim=0)
        # Rounded up to what the network halves.
        assert ((last - first) < 8).all()
        places.add(tuple(first.tolist()))
    assert len(places) > 1
    # A window larger than the images is the images, as is none.
    whole, images = (slice(None), slice(None), *(slice(0, n) for n in shape)), net_of(len(shape))
    assert images.registration.seen(shape, generator()) == whole
    assert net_of(len(shape), registration_window=4000).registration.seen(shape, generator()) == whole


def test_the_morphology_term_pulls_the_atlas_to_its_neighbours_middle():
    """A registration network that answers with a known motion: the answer is the motions' mean."""
    net, batch = net_of(2), batch_of(SHAPES[0])

    def velocity(moving, fixed):
        # Neighbours in turn, atlas by atlas: one lies a voxel up, the other three down.
        moved = torch.zeros(len(moving), 2, 32, 24)
        moved[0::2, 0], moved[1::2, 0] = 1.0, -3.0
        return moved

    net.registration.forward = velocity
    found = net.registration.mean(batch["source"], batch["near_target"])
    torch.testing.assert_close(found[:, 0], torch.full((2, 32, 24), -1.0), atol=1e-4, rtol=0)
    assert not bool(found[:, 1].any())


@pytest.mark.parametrize("field", ["velocity", "displacement"])
def test_by_the_exact_gradient_a_field_comes_to_its_neighbours_middle(field):
    """A registration network that tells how far each is, and has no gradient of its own."""
    net, batch = net_of(2, gradient="exact", field=field), batch_of(SHAPES[0])
    away = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1)
    made = torch.zeros(2, 2, 32, 24, requires_grad=True)

    def velocity(moving, fixed):
        # A neighbour lies 2 before and one 2 behind the place that the atlas is still to go to.
        others = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).repeat(len(moving) // 2, 1).reshape(-1, 2, 1, 1)
        return others + (away - made.detach()).repeat_interleave(2, dim=0)

    net.registration.forward = velocity
    for _ in range(20):
        term = net._morphology(made, batch, None).square().sum(dim=1)
        (gradient,) = torch.autograd.grad(term.sum(), made)
        made.data -= 0.25 * gradient
    # Half of what is left at every step; by the border a motion goes on as it is there.
    torch.testing.assert_close(made.detach(), away.expand_as(made), atol=1e-3, rtol=0)
    assert float(term.detach().mean()) < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_a_registration_is_its_own_inverse(shape):
    net, batch = net_of(len(shape)), batch_of(shape)
    torch.nn.init.normal_(net.registration.head.conv.weight, std=0.3, generator=generator())
    torch.nn.init.constant_(net.registration.head.conv.bias, 2.0)
    one, other = batch["source"], batch["target"]
    there = net.registration(one, other)
    assert float(there.detach().abs().max()) > 0.01
    torch.testing.assert_close(there, -net.registration(other, one))
    assert not bool(net.registration(one, one).any())


@pytest.mark.parametrize("field", ["velocity", "displacement"])
def test_the_anchor_is_what_two_rounds_find_of_each_person_once(field):
    """A registration that goes half of the way: after two rounds three quarters of it."""
    net, batch = net_of(2, gradient="exact", field=field, anchor=1.0), batch_of(SHAPES[0])
    asked = []

    def velocity(moving, fixed):
        share = 0.5 if torch.equal(moving[0], batch["source"][0]) else 0.25
        asked.append(share)
        return torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(len(moving), 2, 32, 24) * share

    net.registration.forward = velocity
    batch["source"][1] = batch["source"][0]
    found = net._anchored(batch)
    # Three people, of whom one stands beside both.
    assert asked == 3 * [0.5, 0.25]
    expected = torch.tensor([1.5, -0.75]).reshape(1, 2, 1, 1).expand_as(found)
    # What is kept has eleven bits.
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert torch.equal(net._anchored(batch), found)
    assert len(asked) == 6


@pytest.mark.parametrize("field", ["velocity", "displacement"])
def test_a_group_is_moved_on_by_its_mean_image(field):
    """People whom a shear carries the atlas onto, and the mean of whose images still lies a scaling from it."""
    net = DiffDef(DiffDefConfig(**{**SMALL, "field": field, "anchor": 1.0, "group_rounds": 2}), 2, 2, 2, KNOWN)
    atlas = 2 * kernels.gaussian(batch_of((32, 24), 2)["source"][:1], 1.5).repeat(2, 2, 1, 1)
    atlas[:, 1] *= -0.5
    x, y = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(24.0) - 11.5, indexing="ij")
    shear, scaling = torch.stack([0.1 * y, 0 * y])[None], torch.stack([0.05 * x, 0.05 * y])[None]
    moved = [kernels.exp(v, 5) for v in (shear, scaling)]
    # As bright as they like, which is no motion.
    shown = kernels.warp(kernels.warp(atlas[:1], moved[1]), moved[0])
    people = torch.cat([1.5 * shown + 0.2, 0.8 * shown], dim=1).expand(2, -1, -1, -1)
    asked = []

    def velocity(moving, fixed):
        # Half of the way at a time: of each of three people, then of both groups at once.
        asked.append((moving, fixed))
        way = shear if len(moving) == 1 else scaling
        return (way / 2).expand(len(moving), -1, -1, -1)

    net.registration.forward = velocity
    who = torch.tensor([[3, 1], [1, 4]])
    mean = net.anchor.mean(atlas, people, who)
    found = net.anchor.moved_on(mean, atlas, people, who)
    assert [len(moving) for moving, _ in asked] == 6 * [1] + 2 * [2]
    # Every second round begins where the first has carried the atlas.
    for first, second, way in ((0, 1, shear), (6, 7, scaling)):
        torch.testing.assert_close(asked[first][0], atlas[: len(asked[first][0])])
        expected = kernels.warp(asked[first][0], kernels.exp(way / 2, 5).expand(len(asked[first][0]), -1, -1, -1))
        torch.testing.assert_close(asked[second][0], expected)
    inner = (..., slice(6, -6), slice(6, -6))
    # What is registered then is the atlas but for the scaling, and as bright.
    mean_image, wanted = asked[6][1][inner], kernels.warp(atlas, moved[1].expand(2, -1, -1, -1))[inner]
    assert float((mean_image - wanted).abs().mean()) < 0.5 * float((atlas[inner] - wanted).abs().mean())
    # The scaling moves the atlas first: what carries it says so to the last digit kept, a velocity in the first order.
    if field == "displacement":
        expected = kernels.compose(moved[0], moved[1]).expand(2, -1, -1, -1)
        torch.testing.assert_close(found[inner], expected[inner], atol=2e-3, rtol=0)
        assert float((found - kernels.compose(moved[1], moved[0])).abs().max()) > 0.02
    else:
        torch.testing.assert_close(found, (shear + scaling).expand(2, -1, -1, -1), atol=2e-3, rtol=0)


def test_brightness_is_matched_where_an_image_is_flat_too():
    like = batch_of((32, 24))["source"]
    torch.testing.assert_close(_match_intensity(3 * like - 1, like), like, atol=1e-4, rtol=0)
    flat = _match_intensity(torch.full_like(like, 0.4), like)
    assert float((flat - kernels.gaussian(like, MATCHING_SIGMA)).abs().max()) < 1e-4
    assert _match_intensity(like.bfloat16(), like.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("registered", [0, 1])
def test_those_who_are_not_registered_stand_where_they_lie(registered):
    """An exact registration: the mean of all is what is still to be gone, whoever is registered."""
    net, batch = net_of(2, gradient="exact", registered=registered), batch_of(SHAPES[0])
    places = {number: torch.full((2, 32, 24), float(number)) for number in (1, 3, 4)}
    net.anchor.kept = {number: Kept(place.half()) for number, place in places.items()}
    numbers, made = iter(batch["near_index"][:, : registered or None].flatten().tolist()), 0.5

    def velocity(moving, fixed):
        return torch.stack([places[next(numbers)] for _ in fixed]) - made

    net.registration.forward = velocity
    field = torch.full((2, 2, 32, 24), made, requires_grad=True)
    found = net._morphology(field, batch, net._anchored(batch))
    expected = torch.tensor([2.0, 2.5]).reshape(2, 1, 1, 1).expand_as(found) - made
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_frugal_term_is_the_same():
    gradients = []
    for frugal in (False, True):
        net, batch = net_of(2, frugal=frugal), batch_of(SHAPES[0])
        torch.nn.init.normal_(net.registration.head.conv.weight, std=0.1, generator=generator())
        atlas = batch["source"].requires_grad_()
        term = net.registration.mean(atlas, batch["near_target"]).square().sum()
        term.backward()
        assert float(term.detach()) > 0
        gradients.append(atlas.grad)
    # Sums of the same numbers in another order.
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_frugal_step_is_the_same(stage):
    steps = []
    for frugal in (False, True):
        net, batch = net_of(2, frugal=frugal, told=True), batch_of(SHAPES[0])
        terms = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator(), stage)
        steps.append((terms, {n: p.grad for n, p in net.named_parameters() if p.grad is not None}))
    (terms, plain), (others, frugal) = steps
    torch.testing.assert_close(terms, others)
    assert plain.keys() == frugal.keys()
    torch.testing.assert_close(plain, frugal, atol=1e-6, rtol=1e-4)
