"""What carries a source's structure to where the target's population has it, and keeps the person."""

import pytest
import torch

from whence import kernels
from whence.models.plasticine import Plasticine, PlasticineConfig
from whence.models.population import Population
from whence.models.structure import label_maps

pytest.importorskip("diffusers")
SMALL = {"features": (8, 16), "spatial_features": (8, 16), "blocks": 1, "attention": 1, "solver_steps": 3}
LABELLED = {**SMALL, "structure": "labels", "population": 0.2, "given": 0.0, "squarings": 5}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def discs(count, radius, shape, spread, random):
    """Labels (count, 1, *shape) of one disc each, ``spread`` voxels about the middle, and their centres (count, D)."""
    middle = (torch.tensor(shape, dtype=torch.float32) - 1) / 2
    centres = middle + spread * (2 * torch.rand(count, len(shape), generator=random) - 1)
    points = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))
    away = (points - centres.reshape(count, len(shape), *[1] * len(shape))).norm(dim=1, keepdim=True)
    return (away < radius).float(), centres


def centres_of(shown):
    """Centres (B, D) of maps (B, 1, *spatial)."""
    points = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shown.shape[2:]), indexing="ij"))
    weight = shown.flatten(2)
    return (weight * points.flatten(1)).sum(dim=2) / weight.sum(dim=2)


def test_it_finds_what_sets_the_populations_apart_and_leaves_the_rest():
    """Discs that are wider in the target's population are widened, each where it is."""
    torch.manual_seed(0)
    net = Population(2, 9, (8, 16, 32), 5)
    mover = torch.optim.Adam(net.movers(), lr=2e-3, betas=(0.5, 0.99))
    critic = torch.optim.Adam(net.critic.parameters(), lr=1e-3, betas=(0.5, 0.99))
    random = generator()
    for step in range(120):
        here, there = (label_maps(discs(8, radius, (32, 32), 5.0, random)[0]) for radius in (5.0, 7.0))
        terms, carried = net.terms(here)
        mover.zero_grad()
        (terms["population"] + 0.5 * terms["population smooth"]).backward()
        mover.step()
        critic.zero_grad()
        net.judged(there, carried, step).backward()
        critic.step()
    shown, centres = discs(16, 5.0, (32, 32), 5.0, random)
    with torch.no_grad():
        carried = kernels.warp(shown, kernels.exp(net(label_maps(shown)), 5))
    area = carried.sum(dim=(1, 2, 3)) / torch.pi
    # A disc of radius 7 has twice the area of one of radius 5; doing nothing leaves 25.
    assert 38 < float(area.mean()) < 60
    moved = (centres_of(carried) - centres).norm(dim=1)
    assert float(moved.mean()) < 1.2
    assert float(centres.std(dim=0).mean()) > 2


@pytest.mark.parametrize("shape", [(32, 40), (24, 24, 24)])
@pytest.mark.parametrize("structure", ["labels", "edges+labels"])
def test_a_step_trains_the_part_and_its_critic(shape, structure):
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**{**LABELLED, "structure": structure, "scales": (2, 1)}), len(shape), 1, 1)
    random = generator()
    labels = {f"{name}_labels": discs(2, 5.0, shape, 3.0, random)[0] for name in ("source", "target")}
    images = {name.removesuffix("_labels"): 2 * found - 1 for name, found in labels.items()} | labels
    batch, optimizers = images | net.derive(images), net.optimizers()
    before = {name: part.detach().clone() for name, part in net.named_parameters()}
    for step in range(2):
        report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    assert all(bool(torch.isfinite(value)) for value in report.values())
    assert {"population", "population smooth", "critic"} <= report.keys()
    changed = {name.split(".")[0] for name, part in net.named_parameters() if not torch.equal(part, before[name])}
    assert changed == {"denoiser", "reader", "spatial", "population"}
    assert not torch.equal(
        net.population.critic.final_conv.conv.weight, before["population.critic.final_conv.conv.weight"]
    )
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained) == len(list(net.parameters()))


def test_where_nothing_is_seen_the_field_is_the_populations():
    """Under all noise it says no more than the source's structure does, and without noise it goes on from there."""
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**LABELLED, scales=(2, 1)), 2, 1, 1)
    with torch.no_grad():
        for head in (net.population.head, net.spatial.head):
            head.conv.weight.normal_(std=0.1)
    structure = net.structure(torch.zeros(2, 1, 32, 32), discs(2, 5.0, (32, 32), 3.0, generator())[0])
    start = net.start(structure)
    noise = torch.randn(2, 1, 32, 32, generator=generator(1))
    hidden, plain = (net.velocity(structure, start, noise, torch.full((2,), level)) for level in (0.0, 1.0))
    assert float(start.abs().max()) > 0.1
    assert torch.allclose(hidden, start)
    assert float((plain - start).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structure": "edges"}, "population 0.2 needs labels in the structure; got 'edges'"),
        ({"transformation": False}, "population is a part of the spatial transformation module"),
    ],
)
def test_what_it_cannot_do_without_is_said(changes, reason):
    with pytest.raises(ValueError, match=reason):
        PlasticineConfig(**{**LABELLED, **changes})
