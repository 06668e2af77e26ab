"""Plasticine: structure maps, a step, what it learns on one image, seeded samples whose fields are diffeomorphisms."""

import sys

import numpy as np
import pytest
import torch

from whence import kernels
from whence.cli import main
from whence.data.frame import Frame
from whence.data.phantom import write_phantom
from whence.errors import InputError
from whence.models.diffusion import scheduler, wanted
from whence.models.plasticine import Plasticine, PlasticineConfig
from whence.models.predictor import Predictor
from whence.models.remap import shuffle_remap
from whence.models.structure import STRUCTURES, Structure, edges
from whence.space import Grid, Volume
from whence.train.options import read_recipe

pytest.importorskip("diffusers")
SMALL = {
    "features": (8, 16),
    "spatial_features": (8, 16),
    "blocks": 1,
    "attention": 1,
    "solver_steps": 3,
    "scales": (2, 1),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def regions(count, shape, seed=0, width=3.0):
    """Images of a few flat regions with soft borders."""
    noise = kernels.gaussian(torch.randn((count, 1, *shape), generator=generator(seed)), width)
    noise = noise / noise.std()
    levels = torch.tensor([-0.9, -0.2, 0.3, 0.9])
    return kernels.gaussian(levels[torch.bucketize(noise, torch.tensor([-0.8, 0.0, 0.8]))], 0.7)


def batch_of(net, shape, seed=0):
    images = {"source": regions(2, shape, seed), "target": regions(2, shape, seed + 1)}
    return images | net.derive(images)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("shape", [(32, 40), (16, 16, 12)])
def test_a_structure_map_is_blind_to_contrast_and_turns_with_the_image(name, shape):
    function, channels = STRUCTURES[name]
    image = regions(2, shape)
    found = function(image)
    assert found.shape == (2, channels, *shape)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.allclose(function(-image), found, atol=1e-4)
    assert torch.allclose(function(0.5 * image + 0.2), found, atol=2e-2)
    # What a filter's tail sees of the opposite border differs.
    apart = (function(image.flip(2)) - found.flip(2)).abs()
    assert float(apart.mean()) < 1e-3
    assert float(apart.max()) < 0.03
    # Of two images the one of the same anatomy is nearer, whatever its intensities are mapped to.
    other = function(shuffle_remap(image, generator(1), (2, 5)))
    elsewhere = function(regions(2, shape, 9))
    assert float((other - found).abs().mean()) < float((elsewhere - found).abs().mean())


def test_edges_by_hand():
    image = -torch.ones(1, 1, 16, 64)
    image[..., 32:] = 1
    found = edges(image, ((1.0, 4.0),))
    assert found[0, 0, 8].argmax() in (31, 32)
    assert float(found[0, 0, 8, 10:16].max()) < 0.02
    assert torch.allclose(found, edges(0.2 * image, ((1.0, 4.0),)), atol=1e-3)


def test_edges_of_a_slice_and_in_half_precision():
    image = regions(1, (32, 40))
    found = edges(image)
    for slab in (image[:, :, :, :, None], image[:, :, None]):
        assert torch.allclose(edges(slab).reshape(found.shape), found, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(edges(image), found)
    assert torch.allclose(edges(image.half()), found, atol=2e-2)


def test_a_structure_by_its_name():
    """Any function can stand for the source; what is none is refused with the reason."""
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**SMALL, structure="torch:abs"), 2, 1, 1)
    assert torch.equal(net.structure(-torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
    report = net.training_step(batch_of(net, (32, 32)), net.optimizers(), lambda loss: loss.backward(), generator())
    assert all(bool(torch.isfinite(value)) for value in report.values())
    for name, reason in [
        ("corners", "unknown structure 'corners'; expected some of edges"),
        ("no_such_module:f", "cannot be had"),
        ("torch:no_such_function", "cannot be had"),
        ("torch:sum", "returns .. of torch.float32 for images of .1, 1, 16, 16."),
        ("torch:is_tensor", "returns bool"),
        ("torch:isfinite", "of torch.bool for images"),
        ("torch:eye", "cannot be had: TypeError"),
    ]:
        with pytest.raises(InputError, match=reason):
            Structure(name, 2)


@pytest.mark.parametrize("answer", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("solver", ["ddim", "dpm"])
def test_a_denoiser_that_knows_the_image_draws_it(solver, answer):
    image = torch.rand((2, 1, 8, 8), generator=generator()) * 2 - 1
    schedule = scheduler(solver, 1000, "squaredcos_cap_v2", answer)
    schedule.set_timesteps(10)
    noisy = torch.randn(image.shape, generator=generator(1))
    for time in schedule.timesteps:
        step = time.expand(2)
        kept = schedule.alphas_cumprod[step].reshape(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * image) / (1 - kept).sqrt()
        noisy = schedule.step(wanted(schedule, image, noise, step), time, noisy).prev_sample
    assert torch.allclose(noisy, image, atol=2e-3)
    if answer == "v_prediction" and solver == "ddim":
        step = torch.tensor([100, 900])
        noise = torch.randn(image.shape, generator=generator(2))
        assert torch.allclose(wanted(schedule, image, noise, step), schedule.get_velocity(image, noise, step))


def test_what_makes_no_sampling_is_refused():
    with pytest.raises(ValueError, match="unknown solver"):
        PlasticineConfig(solver="euler")
    with pytest.raises(ValueError, match="at most 20 solver_steps"):
        PlasticineConfig(noise_steps=20, solver_steps=50)
    with pytest.raises(ValueError, match="100 noise steps of linear leave 60% of an image"):
        Plasticine(PlasticineConfig(**SMALL, noise_steps=100, noise_schedule="linear"), 2, 1, 1)


def test_without_diffusers_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'whence\[diffusion\]'"):
        scheduler("ddim", 1000)


@pytest.mark.parametrize("shape", [(16, 24), (8, 8, 12)])
@pytest.mark.parametrize("given", [0.0, 1.0])
def test_a_step_trains_both_parts_end_to_end(shape, given):
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**SMALL, given=given, aligned=0.0), len(shape), 1, 1)
    optimizers = net.optimizers()
    for step in range(2):
        report = net.training_step(
            batch_of(net, shape), optimizers, lambda loss: loss.backward(), generator(step), step
        )
    assert all(bool(torch.isfinite(value)) for value in report.values())
    assert set(report) == {"loss", "noise", "place", "agreement", "reading", "smooth"}
    # The noise term alone reaches the spatial module, through the structure it carries.
    net.zero_grad()
    batch = batch_of(net, shape)
    terms = net._terms(batch, net._maps(batch["target"], generator(5)), generator(5))
    terms["noise"].backward()
    assert float(net.spatial.head.conv.weight.grad.abs().max()) > 0
    held_out = net.validation_step(batch_of(net, shape), generator())
    assert all(0 <= float(value) < 1e3 for value in held_out.values())


@pytest.mark.parametrize("solver", ["ddim", "dpm"])
def test_samples_are_seeded_and_their_fields_invertible(solver):
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**SMALL, solver=solver), 2, 1, 1)
    with torch.no_grad():
        net.spatial.head.conv.weight.normal_(std=0.05)
    image = Volume(regions(1, (16, 24)), Grid.regular((16, 24)))
    predictor = Predictor(net.eval(), Frame(2, (1.0, 1.0), (16, 24)))
    seen: list[tuple[int, int]] = []
    net.on_step = lambda done, total: seen.append((done, total))
    first, again, other = (predictor.predict(image, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.image.tensor, again.image.tensor)
    assert torch.equal(first.displacement.tensor, again.displacement.tensor)
    assert not torch.equal(first.image.tensor, other.image.tensor)
    assert float(kernels.jacobian_determinant(first.displacement.tensor).min()) > 0
    points = image.grid.to_world(np.array([[6.0, 9.0], [10.0, 14.0]]))
    assert np.abs(first.whither(first.whence(points)) - points).max() < 1e-3
    assert seen == 3 * [(1, 3), (2, 3), (3, 3)]


def test_the_spatial_module_learns_where_a_structure_comes_from():
    """One pair: its field comes to carry the source's structure onto the target's, at every level of noise."""
    torch.manual_seed(0)
    config = PlasticineConfig(**SMALL, given=1.0, learning_rate=3e-3, smoothness=0.01, agreement=10.0)
    net = Plasticine(config, 2, 1, 1)
    source = regions(1, (32, 32), 3)
    bend = kernels.gaussian(torch.randn((1, 2, 32, 32), generator=generator(2)), 6.0)
    truth = kernels.exp(3 * bend / bend.abs().max())
    images = {"source": source.expand(4, 1, 32, 32), "target": kernels.warp(source, truth).expand(4, 1, 32, 32)}
    batch = images | net.derive(images)
    optimizers = net.optimizers()
    reports = [
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step) for step in range(80)
    ]
    assert float(reports[-1]["agreement"]) < 0.6 * float(reports[0]["agreement"])
    velocity = net.velocity(batch["source_structure"], None, images["target"], torch.ones(4)).detach()
    left = (kernels.exp(velocity) - truth).square().sum(dim=1).sqrt().mean()
    assert float(left) < 0.7 * float(truth.square().sum(dim=1).sqrt().mean())


def test_without_its_module_nothing_moves_and_the_trace_is_recovered():
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**SMALL, transformation=False), 2, 1, 1)
    report = net.training_step(batch_of(net, (32, 32)), net.optimizers(), lambda loss: loss.backward(), generator(), 0)
    assert set(report) == {"loss", "noise"}
    trace = Predictor(net.eval(), Frame(2, (1.0, 1.0), (32, 32))).predict(
        Volume(regions(1, (32, 32)), Grid.regular((32, 32)))
    )
    assert (trace.info["kind"], trace.info["recovered_by"]) == ("recovered", "mind")


def test_the_true_map_is_where_the_source_of_a_sample_lies():
    """Carried by it, the structure of an own source is that of its target."""
    net = Plasticine(PlasticineConfig(**SMALL, given=0.0, remapped=0.0, disturbed=0.0), 2, 1, 1)
    batch = batch_of(net, (64, 64))
    away, true = net._maps(batch["target"], generator())
    structure, _, known = net._source(batch, away, generator())
    assert bool(known.all())
    assert float(true.norm(dim=1).mean()) > 0.5
    inner = (..., slice(8, -8), slice(8, -8))
    goal = batch["target_structure"][inner]
    left = (kernels.warp(structure, true)[inner] - goal).abs().mean()
    # Not all: a map that stretches an image does not widen its filters.
    assert float(left) < 0.5 * float((structure[inner] - goal).abs().mean())


def test_the_commands(tmp_path, capsys):
    table = write_phantom("domains", 16, 32, tmp_path / "data", anatomy="heart")
    options = {"steps": 2, "batch_size": 2, "threads": 1, "accelerator": "cpu", "solver_steps": 2, "blocks": 1}
    options |= {"features": "[8,16]", "spatial_features": "[8,16]", "attention": 1}
    given = [f"--{name}={value}" for name, value in options.items()]
    run = tmp_path / "run"
    assert main(["fit", "plasticine", "--data", str(table), "--out", str(run), *given]) == 0
    assert main(["evaluate", str(run), "--data", str(table), "--out", str(tmp_path / "results")]) == 0
    assert main(["report", str(tmp_path / "results")]) == 0
    assert main(["predict", str(run), str(table), "--split", "test", "--out", str(tmp_path / "traces")]) == 0
    assert (tmp_path / "traces" / "case0014" / "displacement.nii.gz").is_file()


def test_the_published_size_builds_and_steps():
    model, train = read_recipe("plasticine-paper", Plasticine)
    assert train.size == (256, 256)
    torch.manual_seed(0)
    net = Plasticine(model, 2, 1, 1)
    images = {"source": regions(1, (256, 256), 0, 8.0), "target": regions(1, (256, 256), 1, 8.0)}
    report = net.training_step(images | net.derive(images), net.optimizers(), lambda loss: loss.backward(), generator())
    assert bool(torch.isfinite(report["loss"]))


@pytest.mark.parametrize("recipe", ["plasticine-cpu-3d", "plasticine-labels-cpu-3d"])
def test_the_recipes_for_volumes_step_and_sample(recipe):
    model, train = read_recipe(recipe, Plasticine, solver_steps=2)
    torch.manual_seed(0)
    net = Plasticine(model, 3, 1, 1)
    count, shape = train.batch_size, (32, 32, 32)
    images = {"source": regions(count, shape, 0), "target": regions(count, shape, 1)}
    images |= {f"{name}_labels": (image > 0).float() for name, image in images.items()}
    report = net.training_step(images | net.derive(images), net.optimizers(), lambda loss: loss.backward(), generator())
    assert bool(torch.isfinite(report["loss"]))
    found = net.eval().infer(images, generator())
    assert found.image.shape == (count, 1, *shape)
    assert float(kernels.jacobian_determinant(found.displacement).min()) > 0
