"""Diff-Def: stages, diffeomorphic fields, conditions that are heard."""

import pytest
import torch
from diffdef_small import KNOWN, SHAPES, batch_of, generator, net_of

from whence import kernels
from whence.data.frame import Frame, fit_shape
from whence.field import Displacement, jacobian_determinant
from whence.models.diffdef import DiffDef
from whence.models.diffdef_config import DiffDefConfig
from whence.models.predictor import Predictor
from whence.nets.blocks import in_blocks, out_of_blocks
from whence.space import Grid
from whence.train.options import read_recipe


@pytest.mark.parametrize("shape", SHAPES)
def test_each_stage_trains_its_own_part(shape):
    net, batch = net_of(len(shape)), batch_of(shape)
    optimizers = net.optimizers()
    expected = [{"vae"}, {"registration"}, {"tokens", "unet", "fields"}]
    for step, (parts, terms) in enumerate(
        zip(expected, ({"image", "kl"}, {"similarity", "smooth"}, {"noise", "morphology", "bending"}), strict=True)
    ):
        before = {name: part.detach().clone() for name, part in net.named_parameters()}
        report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
        assert set(report) == {"loss"} | terms
        changed = {n.split(".")[0] for n, p in net.named_parameters() if not torch.equal(p, before[n])}
        assert changed == parts
    assert all(bool(torch.isfinite(v)) for v in net.validation_step(batch, generator()).values())


@pytest.mark.parametrize("shape", SHAPES)
def test_networks_that_see_blocks_of_voxels_answer_at_the_images_resolution(shape):
    net, batch = net_of(len(shape), vae_patch=2, registration_patch=2, vae_features=(8, 16)), batch_of(shape)
    optimizers = net.optimizers()
    for step in range(3):
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    assert net.multiple == 8
    assert net.encode(batch["target"]).shape[2:] == tuple(n // 4 for n in shape)
    found = net.infer(batch, generator())
    assert found.image.shape == batch["source"].shape
    assert found.displacement.shape == (2, len(shape), *shape)
    # What lies in blocks comes out where it was.
    image = torch.arange(float(batch["target"].numel())).reshape(batch["target"].shape)
    assert torch.equal(out_of_blocks(in_blocks(image, 2), 2), image)
    block = in_blocks(image, 2)[(0, slice(None), *[0] * len(shape))]
    assert torch.equal(block.sort().values, image[(0, 0, *[slice(2)] * len(shape))].flatten().sort().values)


def test_networks_of_other_blocks_fit_one_lattice():
    """Stages see the same images: their sides are divided by blocks of voxels and halvings of all."""
    net = net_of(2, registration_patch=3)
    batch = batch_of((net.multiple, 2 * net.multiple))
    for step in range(3):
        net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator(), step)


def test_the_fields_decoder_begins_as_the_images():
    # The third stage's step itself moves nothing that could be seen.
    net, batch = net_of(2, learning_rate=1e-12), batch_of(SHAPES[0])
    optimizers = net.optimizers()
    for step in range(3):
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    latents = torch.randn(1, 3, 16, 12, generator=generator())
    for own, image in zip(net.fields.blocks[:-2], net.vae.net.decoder.blocks[:-2], strict=True):
        assert all(torch.allclose(p, q, atol=1e-9) for p, q in zip(own.parameters(), image.parameters(), strict=True))
    assert float(net.fields(latents).detach().abs().max()) < 0.2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_velocity_folds_nowhere_and_the_inverse_is_one(shape):
    net, batch = net_of(len(shape), smoothing=1.5).eval(), batch_of(shape)
    torch.nn.init.normal_(net.fields.blocks[-1].weight, std=2.0, generator=generator())
    found = net.infer(batch, generator())
    assert torch.allclose(found.image, kernels.warp(batch["source"], found.displacement))
    assert float(found.displacement.abs().max()) > 0.5
    grid = Grid(shape, torch.eye(len(shape) + 1).numpy())
    for field in (found.displacement[:1], found.inverse[:1]):
        assert float(jacobian_determinant(Displacement(field, grid)).min()) > 0
    # There and back, in voxels; beyond the border the field goes on as it is there.
    around = kernels.compose(found.displacement, found.inverse)
    inner = (slice(None), slice(None), *[slice(6, -6)] * len(shape))
    assert float(around[inner].abs().mean()) < 0.1


def test_a_displacement_is_taken_as_it_is():
    net, batch = net_of(2, field="displacement").eval(), batch_of(SHAPES[0])
    found = net.infer(batch, generator())
    assert found.inverse is None
    assert found.displacement.shape == (2, 2, 32, 24)


def test_without_a_field_the_atlas_is_drawn():
    net, batch = net_of(2, field="image"), batch_of(SHAPES[0])
    optimizers = net.optimizers()
    for step in range(3):
        report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    assert set(report) == {"loss", "noise"}
    found = net.eval().infer(batch, generator())
    assert found.displacement is None
    assert found.image.shape == (2, 1, 32, 24)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decoder_that_is_told_begins_as_one_that_is_not(shape):
    """And what it is told may change a field's length by any factor."""
    net, batch = net_of(len(shape), told=True), batch_of(shape)
    latents = torch.randn(2, 3, *(n // 2 for n in shape), generator=generator())
    torch.nn.init.normal_(net.fields.blocks[-1].weight, std=3.0, generator=generator())
    tokens = net.tokens(batch["conditions"])
    before = net.field_of(latents, tokens)
    torch.testing.assert_close(before, net.field_of(latents, tokens.flip(0)))
    # The features before the last convolution, ten times for the first and none for the second.
    scales = net.fields.told[str(len(net.fields.blocks) - 3)]
    read = net.fields.read(tokens.mean(dim=1)).detach()
    towards = torch.linalg.lstsq(read, torch.tensor([[9.0], [-1.0]])).solution
    with torch.no_grad():
        scales.read.weight[: scales.parts[0]] = towards.T
    after = net.field_of(latents, tokens)
    torch.testing.assert_close(after[0], 10 * before[0], rtol=1e-3, atol=1e-4)
    assert float(after[1].detach().abs().max()) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_field_stays_in_the_frame_it_was_learnt_in(shape):
    """An atlas that shows more, or less, is moved as the one of training was."""
    options = {"told": True, "maps": 2, "learning_rate": 1e-2, "field": "displacement"}
    net, batch = net_of(len(shape), **options), batch_of(shape)
    optimizers = net.optimizers()
    for step in range(5):
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    known = net.infer(batch, generator()).displacement
    assert float(known.abs().max()) > 1e-3
    predictor = Predictor(net, Frame(len(shape), (1.0,) * len(shape), shape))
    for change in (8, -8, 11):
        other = fit_shape(batch["source"], [n + change for n in shape])
        found = predictor._infer({**batch, "source": other}, generator()).displacement
        # Where the atlas goes on the field comes to rest before the end of its frame.
        seen = [n - 8 for n in shape]
        torch.testing.assert_close(fit_shape(found, seen), fit_shape(known, seen))
        if change > 0:
            steps = [found.diff(dim=axis).abs().max() for axis in range(2, found.ndim)]
            assert float(torch.stack(steps).max()) < 0.7 * float(known.abs().max())
            beyond = fit_shape(torch.zeros(1, 1, *shape), other.shape[2:], 1.0)
            assert float((found * beyond).abs().max()) == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"told": True, "maps": 2, "gradient": "exact", "anchor": 0.5, "registered": 1, "group_rounds": 1}],
)
def test_half_precision_trains_and_its_field_has_fractions_of_a_voxel(options):
    net, batch = net_of(2, **options), batch_of(SHAPES[0])
    optimizers = net.optimizers()
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
        assert all(bool(torch.isfinite(value)) for value in report.values())
    with torch.autocast("cpu", torch.bfloat16):
        latents, tokens = net.encode(batch["target"]), net.tokens(batch["conditions"])
        field = net.field_of(latents, tokens)
    assert {latents.dtype, field.dtype, net.displacement(field).dtype} == {torch.float32}


def test_the_recipe_of_volumes_takes_a_step_of_each_stage():
    model, _ = read_recipe("diffdef-cpu-3d", DiffDef, neighbours=4)
    torch.manual_seed(0)
    net, batch = DiffDef(model, 3, 1, 1, attributes=KNOWN), batch_of((32, 32, 32), 1)
    batch |= {"near_target": batch["near_target"].repeat(1, 2, 1, 1, 1), "near_index": torch.tensor([[3, 1, 3, 1]])}
    optimizers = net.optimizers()
    for step in (0, model.vae_steps, model.vae_steps + model.registration_steps):
        report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(), step)
        assert bool(torch.isfinite(report["loss"]))
    assert {"morphology", "anchor"} <= report.keys()
    assert net.anchor.kept.keys() == {1, 3}
    assert all(kept.image is not None for kept in net.anchor.kept.values())


def test_draws_are_seeded_and_conditions_heard():
    net, batch = net_of(2).eval(), batch_of(SHAPES[0])
    torch.nn.init.normal_(net.fields.blocks[-1].weight, std=1.5, generator=generator())
    for part in net.unet.parameters():
        if not bool(part.any()):
            # As it begins, attention's answer and the last convolution are 0.
            torch.nn.init.normal_(part, std=0.2, generator=generator())
    one, again, other = (net.infer(batch, generator(seed)).displacement for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    older = {**batch, "conditions": batch["conditions"] + 2}
    found = net.infer(older, generator()).displacement
    # The second's is unknown in both.
    assert not torch.allclose(found[0], one[0], atol=1e-5)
    assert torch.allclose(found[1], one[1], atol=1e-5)


def test_an_atlas_may_be_the_mean_of_several_draws():
    net, batch = net_of(2, averaged=3).eval(), batch_of(SHAPES[0])
    torch.nn.init.normal_(net.fields.blocks[-1].weight, std=3.0, generator=generator())
    found, draws = net.infer(batch, generator()), generator()
    with torch.no_grad():
        tokens = net.tokens(batch["conditions"])
        fields = torch.stack([net.field_of(net.drawn(SHAPES[0], tokens, draws), tokens) for _ in range(3)])
    assert float((fields[0] - fields[1]).abs().max()) > 1e-3
    torch.testing.assert_close(found.displacement, kernels.exp(fields.mean(dim=0), 5), atol=1e-4, rtol=1e-4)


def test_the_published_recipe_takes_a_step_of_each_stage_in_the_plane():
    model, train = read_recipe("diffdef-paper", DiffDef)
    assert (train.size, train.batch_size, model.neighbours) == ((160, 224, 160), 1, 15)
    assert model.field == "displacement"
    torch.manual_seed(0)
    net, batch = DiffDef(model, 2, 1, 1, attributes=KNOWN), batch_of((32, 32), 1)
    assert (net.multiple, net.vae.multiple) == (32, 8)
    optimizers = net.optimizers()
    for step in (0, model.vae_steps, model.vae_steps + model.registration_steps):
        report = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(), step)
        assert bool(torch.isfinite(report["loss"]))
    assert "morphology" in report


def test_it_learns_the_motion_that_a_condition_means():
    """People are the atlas, shifted by their age: the atlas of an age is the atlas, shifted so."""
    torch.manual_seed(0)
    options = {"vae_steps": 20, "registration_steps": 220, "told": True, "through": 0, "registration_smoothness": 0.02}
    rates = {"registration_rate": 3e-3, "learning_rate": 3e-3, "bending": 0.1, "morphology": 1.0}
    net = net_of(2, **options, **rates)
    places = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 24), indexing="ij"))
    atlas = (torch.exp(-(places.square().sum(dim=0)) / 0.15) * 1.6 - 0.8)[None, None]

    def people(ages):
        shift = torch.zeros(len(ages), 2, 32, 24)
        shift[:, 0] = 1.5 * ages.reshape(-1, 1, 1)
        return kernels.warp(atlas.expand(len(ages), -1, -1, -1), shift)

    optimizers = net.optimizers()
    for step in range(420):
        ages = torch.tensor([-1.0, 1.0]) if step % 2 else 2 * torch.rand(2, generator=generator(step)) - 1
        shown = people(ages)
        batch = {"source": atlas.expand(2, -1, -1, -1), "target": shown, "near_target": shown.repeat(1, 2, 1, 1)}
        if 20 <= step < 240:
            # People are registered to others; here of the other age.
            batch["near_target"] = shown.flip(0)
        batch["conditions"] = ages[:, None]
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    net.eval()
    asked = {"source": atlas.expand(2, -1, -1, -1), "conditions": torch.tensor([[-1.0], [1.0]])}
    found = net.infer(asked, generator()).displacement[:, 0, 10:22, 8:16].mean(dim=(1, 2))
    # 3 voxels apart in truth, 0 if the condition were not heeded.
    assert float(found[1] - found[0]) > 1.5


def test_what_makes_no_model_is_said():
    for options, reason in [
        ({"conditions": ()}, "names of columns"),
        ({"features": (16,)}, "two multiples of 8"),
        ({"neighbours": 0}, "neighbours must lie between"),
        ({"solver": "euler"}, "unknown solver"),
        ({"neighbours": 3, "registered": 4}, "at most 3 registered"),
        ({"solver_steps": 30, "noise_steps": 20}, "at most 20 solver_steps"),
        ({"field": "veloctiy"}, "unknown field"),
        ({"gradient": "extact"}, "unknown gradient"),
        ({"maps": 4}, "weighed by conditions that the decoder is told"),
        ({"group_rounds": 2}, "move the anchor on; got 2 group_rounds, anchor 0"),
    ]:
        with pytest.raises(ValueError, match=reason):
            DiffDefConfig(**options)
    with pytest.raises(ValueError, match="at most 3 through"):
        net_of(2, through=4)
