"""TraceTrans and its ablations: each builds, takes a finite step, and says whence."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import whence
from whence.data import Frame, PairDataset, read_pairs, survey
from whence.errors import InputError
from whence.io import read_displacement, read_labels
from whence.metrics import displacement_error
from whence.models import find_method, method_names
from whence.models.predictor import Predictor
from whence.recipes import recipe_names
from whence.space import Grid, Volume
from whence.train.options import read_recipe

SMALL = {
    "features": (8, 8, 16),
    "discriminator_filters": 8,
    "discriminator_layers": 1,
    "similarity_window": 5,
    "learning_rate": 1e-3,
}
SHAPES = {2: (24, 20), 3: (16, 12, 12)}
ABLATIONS = {
    "published": {},
    "single": {"stream": "single", "gamma": 0.0},
    "translation-alone": {"alpha": 1.0, "gamma": 0.0},
    "deformation-alone": {"alpha": 0.0},
    "no-cross-term": {"gamma": 0.0},
    "no-discriminator": {"adversarial": 0.0},
    "no-smoothness": {"smoothness": 0.0},
    "ncc": {"similarity": "ncc"},
    "mind": {"similarity": "mind"},
    "mse": {"similarity": "mse"},
    "deform-l1": {"deform_l1": 1.0},
    "coarse-velocity": {"velocity_scale": 2},
    "few-squarings": {"squarings": 2},
    "bins": {"similarity_bins": 8, "cross_bins": 48},
    "own-rate": {"discriminator_learning_rate": 1e-4},
}


def make(name="tracetrans", dims=2, source_channels=1, target_channels=1, **options):
    method = find_method(name)
    torch.manual_seed(0)
    return method(method.config_class(**{**SMALL, **options}), dims, source_channels, target_channels)


def batch(dims=2, source_channels=1, target_channels=1, count=2, registered=False):
    generator = torch.Generator().manual_seed(1)

    def images(channels):
        return torch.rand(count, channels, *SHAPES[dims], generator=generator) * 2 - 1

    found = {"source": images(source_channels), "target": images(target_channels)}
    return {**found, "registered": images(source_channels)} if registered else found


def step(net, images):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizers = net.optimizers()
    report = net.training_step(images, optimizers, lambda loss: loss.backward(), torch.Generator().manual_seed(0))
    assert all(torch.isfinite(value) for value in report.values()), report
    after = net.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    return report, moved


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_takes_a_step(ablation, dims):
    net = make(dims=dims, **ABLATIONS[ablation])
    report, moved = step(net, batch(dims))
    assert {"loss", "l1"} <= report.keys()
    # Every part that the ablation leaves learns; what it leaves out is not there.
    parts = {name.split(".")[0] for name in net.state_dict()}
    learnt = {name.split(".")[0] for name in moved}
    idle = {"translation"} if ABLATIONS[ablation].get("alpha") == 0 else set()
    assert parts - idle <= learnt
    assert ("judge_translation" in parts) == (ABLATIONS[ablation].get("adversarial") != 0)
    assert ("deformation" in parts) == net.deforms
    assert net.deforms == (ablation not in ("single", "translation-alone"))
    prediction = net.infer(batch(dims), torch.Generator())
    assert prediction.image.shape == (2, 1, *SHAPES[dims])
    assert float(prediction.image.abs().max()) <= 1
    assert (prediction.displacement is None) == (not net.deforms)
    if net.deforms:
        assert prediction.displacement.shape == prediction.inverse.shape == (2, dims, *SHAPES[dims])
        assert all(torch.isfinite(value) for value in net.validation_step(batch(dims), torch.Generator()).values())


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_and_a_registered_image(dims):
    net = make(dims=dims, source_channels=3, target_channels=3, similarity="ncc")
    step(net, batch(dims, 3, 3, registered=True))
    assert net.infer(batch(dims, 3, 3), torch.Generator()).image.shape[1] == 3


def test_a_translator_may_change_the_number_of_channels():
    net = make("pix2pix", source_channels=2)
    step(net, batch(2, 2, 1))
    source = Volume(batch(2, 2, 1, count=1)["source"], Grid.regular(SHAPES[2]))
    trace = Predictor(net, Frame(2, (1.0, 1.0), SHAPES[2], source_channels=2)).predict(source)
    assert trace.image.tensor.shape[1] == trace.novelty.tensor.shape[1] == 1
    assert trace.warped_source.tensor.shape[1] == 2


def test_a_registered_image_is_what_the_warps_judge_sees():
    reports = []
    for registered in (False, True):
        net = make(adversarial=1.0)
        reports.append(step(net, batch(registered=registered))[0])
    assert float(reports[0]["loss"]) == float(reports[1]["loss"])
    assert float(reports[0]["discriminator"]) != float(reports[1]["discriminator"])


def test_training_starts_from_the_identity():
    prediction = make().infer(batch(), torch.Generator())
    assert float(prediction.displacement.abs().max()) < 1e-2


def test_pix2pix_is_translation_alone():
    assert {"pix2pix", "tracetrans"} <= set(method_names())
    baseline, ablation = make("pix2pix"), make(alpha=1.0, gamma=0.0, stream="single")
    assert baseline.state_dict().keys() == ablation.state_dict().keys()
    reports = [step(net, batch())[0] for net in (baseline, ablation)]
    assert {n: float(v) for n, v in reports[0].items()} == {n: float(v) for n, v in reports[1].items()}
    for name, value in baseline.state_dict().items():
        assert torch.equal(value, ablation.state_dict()[name])
    # Least squares and L1, as written.
    assert float(reports[0]["loss"]) == pytest.approx(
        float(reports[0]["l1"]) + baseline.config.adversarial * float(reports[0]["adversarial"]), rel=1e-5
    )


def test_the_loss_is_the_papers_sum():
    net = make(alpha=0.3, gamma=0.7, adversarial=0.2, smoothness=0.4)
    report = {name: float(value) for name, value in step(net, batch())[0].items()}
    translation = report["l1"] + 0.2 * report["adversarial"]
    deformation = report["align"] + 0.2 * report["adversarial_warp"] + 0.4 * report["smooth"]
    assert report["loss"] == pytest.approx(0.3 * translation + 0.7 * deformation + 0.7 * report["cross"], rel=1e-5)


def test_pix2pix_traces_are_recovered():
    generator = np.random.default_rng(0)
    source = Volume(torch.from_numpy(generator.random((1, 1, 21, 19)).astype(np.float32)), Grid.regular((21, 19), 2.0))
    trace = Predictor(make("pix2pix"), Frame(2, (2.0, 2.0), (24, 20))).predict(source)
    assert trace.info["kind"] == "recovered"
    assert trace.info["method"] == "pix2pix"
    assert trace.displacement.grid == source.grid
    trace = Predictor(make(), Frame(2, (2.0, 2.0), (24, 20))).predict(source)
    assert trace.info["kind"] == "predicted"


@pytest.mark.parametrize("dims", [2, 3])
def test_whither_undoes_whence_of_a_network(dims):
    net = make(dims=dims, features=(8, 8, 16, 16), velocity_scale=4)
    with torch.no_grad():
        net.velocity.conv.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    forward, backward = (net.infer(batch(dims), torch.Generator())[k] for k in (1, 2))
    from whence import kernels

    assert float(forward.abs().mean()) > 0.05
    left = kernels.compose(forward, backward).square().sum(dim=1).sqrt()
    # A velocity as rough as an untrained network's, and borders that are only repeated.
    assert float(left.mean()) < 0.15 * float(forward.square().sum(dim=1).sqrt().mean()) + 0.02


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 1.2}, "alpha must lie between 0 and 1"),
        ({"alpha": float("nan")}, "alpha must lie between 0 and 1"),
        ({"squarings": 100}, "squarings must lie"),
        ({"discriminator_filters": 0}, "discriminator_filters must lie"),
        ({"smoothness": -1.0}, "smoothness must lie"),
        ({"features": ()}, "channel counts"),
        ({"velocity_scale": 3}, "power of two"),
        ({"velocity_scale": 8}, "power of two"),
        ({"similarity": "love"}, "unknown similarity"),
        ({"similarity": "ncc", "similarity_window": 4}, "odd"),
        ({"similarity_bins": 3}, "at least 5 bins"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)


@pytest.mark.parametrize("name", recipe_names("tracetrans"))
def test_recipes_are_settings(name):
    method = find_method(name.split("-")[0])
    model, train = read_recipe(name, method)
    assert train.steps > 0
    assert isinstance(model, method.config_class)
    again, _ = read_recipe(name, method, steps=7)
    assert again == model


def test_an_unknown_recipe():
    with pytest.raises(InputError, match="'alchemy-paper'"):
        read_recipe("alchemy-paper", find_method("tracetrans"))


@pytest.mark.slow
def test_the_published_setting_takes_a_step():
    model, train = read_recipe("tracetrans-paper", find_method("tracetrans"))
    assert (train.size, train.batch_size, train.steps) == ((256, 256), 1, 4500)
    assert (model.alpha, model.gamma, model.similarity_bins, model.cross_bins) == (0.5, 1.0, 16, 32)
    assert (model.similarity, model.squarings, model.adversarial, model.smoothness) == ("nmi", 7, 0.01, 1.0)
    torch.manual_seed(0)
    net = find_method("tracetrans")(model, 2, 1, 1)
    images = {name: torch.rand(1, 1, 256, 256) * 2 - 1 for name in ("source", "target")}
    step(net, images)


@pytest.mark.slow
def test_one_pair_can_be_learnt_by_heart(surgery):
    """After a few hundred steps on one case, its motion is found and its image predicted."""
    table = read_pairs(surgery)
    rows = dataclasses.replace(table, rows=table.rows[:1])
    frame = survey(rows)
    images = PairDataset(rows, frame)[0]
    images = {name: value[None] for name, value in images.items()}
    torch.manual_seed(0)
    net = make(similarity="ncc", smoothness=0.05, gamma=0.1, adversarial=0.0, features=(16, 16, 32), learning_rate=2e-3)
    optimizers = net.optimizers()
    reports = [
        net.training_step(images, optimizers, lambda loss: loss.backward(), torch.Generator()) for _ in range(250)
    ]
    assert float(reports[-1]["l1"]) < 0.35 * float(reports[0]["l1"])
    row = rows.rows[0]
    trace = Predictor(net, frame).predict(whence.read(row.path("source")))
    truth = read_displacement(row.files["displacement"])
    inside = read_labels(row.files["target_brain"]).tensor > 0
    inside &= read_labels(row.files["target_mask"]).tensor == 0
    found = displacement_error(trace.displacement, truth)[inside]
    still = truth.magnitude()[inside]
    # Where tissue moved by more than a voxel's third. Its voxels are 6.5 mm wide, the motion hardly more.
    moved = still > float(truth.grid.spacing[0]) / 3
    assert float(found[moved].mean()) < 0.8 * float(still[moved].mean())
    assert trace.statistics()["folded_share"] == 0


def test_methods_of_other_packages_are_found(monkeypatch):
    point = SimpleNamespace(name="mine", load=lambda: "the class")
    monkeypatch.setattr("whence.models.entry_points", lambda group: [point])
    assert find_method("mine") == "the class"
    assert "mine" in method_names()
    with pytest.raises(InputError, match=r"unknown method 'yours'; expected one of .*mine, "):
        find_method("yours")
