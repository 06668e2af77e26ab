"""Retrieval-based generation: the composite, the prompt, a step, what it learns from a past case, published folders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from whence.errors import InputError
from whence.models.composite import beside_neighbours, bounding_box, cell_of, composite, in_context, planned
from whence.models.instruction import cut_otherwise, mask_grid, part_of
from whence.models.postop import Postop
from whence.models.postop_config import PostopConfig
from whence.nets.latent import stable_diffusion, widened
from whence.nets.prompt import SamEncoder
from whence.train.options import read_recipe

diffusers = pytest.importorskip("diffusers")
SMALL = {"features": (16, 32), "vae_features": (8, 16), "vae_steps": 1, "solver_steps": 3}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(count=2, side=32, seed=0):
    random = generator(seed)
    images = {
        name: 2 * torch.rand((count, 1, side, side), generator=random) - 1
        for name in ("source", "target", "case_source", "case_target")
    }
    names = ("source_mask", "target_cavity", "case_source_mask", "case_target_cavity")
    masks = {name: torch.zeros(count, 1, side, side) for name in names}
    for mask in masks.values():
        mask[..., 8:14, 10:20] = 1
    return images | masks


def test_the_composite_by_hand():
    cavity = torch.zeros(2, 1, 6, 7)
    cavity[0, 0, 1, 2] = cavity[0, 0, 3, 4] = 3
    box = bounding_box(cavity)
    wanted = torch.zeros(2, 1, 6, 7)
    wanted[0, 0, 1:4, 2:5] = 1
    # Where nothing was resected nothing is pasted.
    assert torch.equal(box, wanted)
    query, outcome = torch.zeros(2, 1, 6, 7), torch.ones(2, 1, 6, 7)
    assert torch.equal(composite(query, outcome, cavity), wanted)
    volume = torch.zeros(1, 1, 4, 5, 6)
    volume[0, 0, 1, 2, 3] = volume[0, 0, 2, 2, 5] = 1
    assert int(bounding_box(volume).sum()) == 2 * 1 * 3


def test_the_composite_of_a_plan_by_hand():
    """The cavity of the past case, stretched over the plan; nothing changes beyond the plan."""
    outcome = torch.zeros(1, 1, 16, 16)
    outcome[..., 2:6, 2:6] = torch.arange(16.0).reshape(4, 4) + 1
    cavity, plan = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    cavity[..., 2:6, 2:6] = 1
    plan[..., 8:12, 9:13] = 1
    query = -torch.ones(1, 1, 16, 16)
    found = planned(query, outcome, cavity, plan)
    wanted = query.clone()
    wanted[..., 8:12, 9:13] = outcome[..., 2:6, 2:6]
    assert torch.allclose(found, wanted)
    # A plan of another shape within its box is filled as far as it goes; where the case has no cavity by its mean.
    plan[..., 8, 9] = 0
    cavity[..., 3, 3] = 0
    found = planned(query, outcome, cavity, plan)
    assert float(found[0, 0, 8, 9]) == -1
    assert float(found[0, 0, 9, 10]) == pytest.approx(float((outcome * cavity).sum() / cavity.sum()))
    assert torch.equal(planned(query, outcome, cavity, 0 * plan), query)


def test_the_grid_of_in_context_learning():
    cells = [torch.full((1, 2, 3, 4), float(n)) for n in range(4)]
    grid = in_context(*cells)
    assert grid.shape == (1, 2, 6, 8)
    assert [float(grid[0, 0, y, x]) for y in (0, 3) for x in (0, 4)] == [0, 1, 2, 3]
    assert torch.equal(cell_of(grid), cells[3])


def test_the_autoencoder_learns_first_then_the_rest():
    torch.manual_seed(0)
    net, batch = Postop(PostopConfig(**SMALL), 2, 1, 1), batch_of()
    optimizers = net.optimizers()
    before = {name: part.detach().clone() for name, part in net.named_parameters()}

    def changed():
        return {n.split(".")[0] for n, part in net.named_parameters() if not torch.equal(part, before[n])}

    first = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(), 0)
    assert set(first) == {"loss", "image", "kl"}
    assert changed() == {"vae"}
    kept = {name: part.detach().clone() for name, part in net.vae.named_parameters()}
    for step in (1, 2):
        second = net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(step), step)
    assert set(second) == {"loss", "noise"}
    assert all(torch.equal(part, kept[name]) for name, part in net.vae.named_parameters())
    assert changed() >= {"vae", "unet", "of_mask", "of_composite"}
    held_out = net.validation_step(batch, generator())
    assert all(bool(torch.isfinite(value)) for value in held_out.values())


def test_answers_are_seeded_and_show_what_they_come_from():
    torch.manual_seed(0)
    net, batch = Postop(PostopConfig(**SMALL), 2, 1, 1).eval(), batch_of()
    seen: list[tuple[int, int]] = []
    net.on_step = lambda done, total: seen.append((done, total))
    first, again, other = (net.infer(batch, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert first.displacement is None
    # Nothing is compared where something was cut out.
    assert torch.equal(first.comparable, 1 - batch["case_target_cavity"])
    assert float(first.image.abs().max()) <= 1
    assert set(first.images) == {"retrieved before", "retrieved after", "composite"}
    assert seen == 3 * [(1, 3), (2, 3), (3, 3)]


def test_a_plan_is_told_by_composite_and_grid():
    torch.manual_seed(0)
    net, batch = Postop(PostopConfig(**SMALL), 2, 1, 1).eval(), batch_of()
    plan = torch.zeros(2, 1, 32, 32)
    plan[..., 20:28, 16:24] = 1
    free, bound = (net.infer(given, generator()) for given in (batch, {**batch, "resection_mask": plan}))
    assert not torch.equal(free.image, bound.image)
    assert torch.equal(bound.images["composite"][plan == 0], batch["source"][plan == 0])
    # Cut out is what is planned, and the past case's cavity no longer.
    assert float((bound.comparable * plan).max()) == 0
    told = torch.tensor([True, False]).reshape(2, 1, 1, 1)
    # Half the resolution, and each of its voxels' four masks as channels.
    grid = mask_grid({**batch, "resection_mask": plan}, (True, True, True, told), 2)
    assert grid.shape == (2, 4, 32, 32)
    assert torch.equal(F.pixel_shuffle(cell_of(grid)[:1], 2), plan[:1])
    assert torch.equal(cell_of(grid)[1], -torch.ones(4, 16, 16))


def test_a_part_lies_on_one_side_of_a_line():
    mask = torch.zeros(40, 1, 24, 24)
    mask[..., 4:20, 6:16] = 1
    mask[0] = 0
    part = part_of(mask, generator())
    assert not bool(part[0].any())
    assert not bool((part > mask).any())
    shares = (part.flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1))[1:]
    # A line of voxels, up to a tenth of them, lies on the cut.
    assert 0.28 < float(shares.min()) < 0.45
    assert 0.65 < float(shares.max()) < 0.92
    # Of a line's two sides the one's middle lies away from the other's, along the line's normal, by half of the whole.
    for one, rest in zip(part[1:, 0], (mask - part)[1:, 0], strict=True):
        both = [side.nonzero().float() for side in (one, rest)]
        normal = both[1].mean(dim=0) - both[0].mean(dim=0)
        assert float(normal.norm()) > 3


def test_what_else_might_have_been_cut_by_hand():
    batch = {name: torch.full((1, 1, 16, 16), value) for name, value in (("source", 0.5), ("target", 0.2))}
    batch["target_cavity"] = torch.zeros(1, 1, 16, 16)
    batch["target_cavity"][..., 2:6, 2:6] = 1
    batch["target"][..., 2:6, 2:6] = -1
    plan = torch.zeros(1, 1, 16, 16)
    plan[..., 4:10, 4:8] = 1
    found = cut_otherwise(batch, plan)
    wanted = batch["target"].clone()
    # Cut and not planned: as in the scan. Planned: a cavity.
    wanted[..., 2:6, 2:6] = 0.5
    wanted[..., 4:10, 4:8] = -1
    assert torch.allclose(found, wanted)


def test_a_plan_may_be_heeded_more():
    torch.manual_seed(0)
    net, batch = Postop(PostopConfig(**SMALL), 2, 1, 1).eval(), batch_of()
    # What is drawn, as it is: the outcome's latents.
    net._decoded = lambda latents: latents / 100
    plan = {"resection_mask": torch.zeros(2, 1, 32, 32)}
    plan["resection_mask"][..., 20:28, 16:24] = 1
    free, told = (net.infer(given, generator()).image for given in (batch, batch | plan))
    net.config = replace(net.config, heeded=1.5)
    assert float((told - free).abs().max()) > 1e-5
    torch.testing.assert_close(net.infer(batch | plan, generator()).image, free + 1.5 * (told - free))
    assert torch.equal(net.infer(batch, generator()).image, free)


def test_a_carrier_begins_with_the_scan_and_traces_what_it_moves():
    torch.manual_seed(0)
    net, batch = Postop(PostopConfig(**SMALL, carrier=(8, 8)), 2, 1, 1).eval(), batch_of()
    found = net.infer(batch, generator())
    # Its last layers begin with weights of 1e-3 and 1e-5.
    torch.testing.assert_close(found.image, batch["source"], atol=0.05, rtol=0)
    torch.nn.init.constant_(net.carrier.velocity.conv.bias, 2.0)
    torch.nn.init.zeros_(net.carrier.change.weight)
    moved = net.infer(batch, generator())
    assert torch.allclose(moved.displacement, torch.full((), 2.0), atol=1e-2)
    assert torch.allclose(moved.inverse, torch.full((), -2.0), atol=1e-2)
    # The outcome's point names the source's two voxels further on.
    torch.testing.assert_close(moved.image[..., :28, :28], batch["source"][..., 2:30, 2:30], atol=0.05, rtol=0)
    report = net.train().training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator(), 1)
    assert set(report) == {"loss", "noise", "outcome", "align", "smooth"}
    gone = net.optimizers()[0].param_groups[0]["params"]
    assert any(part is net.carrier.change.weight for part in gone)


@pytest.mark.parametrize("part", ["source_mask", "case_target", "case_source"])
def test_each_part_of_the_instruction_is_heard(part):
    """And is not, where an option leaves it out."""
    batch = batch_of()
    others = {**batch, part: batch[part].roll(5, 2)}
    for options, heard in [
        ({}, True),
        ({"segmentation": False, "composed": False, "instructed": False}, False),
    ]:
        torch.manual_seed(0)
        net = Postop(PostopConfig(**SMALL, **options), 2, 1, 1).eval()
        answers = [net.infer(given, generator()).image for given in (batch, others)]
        assert torch.equal(*answers) is not heard


def test_it_learns_to_follow_the_past_case():
    """One query, two past cases of two outcomes: the answers differ as the outcomes do."""
    torch.manual_seed(0)
    config = PostopConfig(
        **{**SMALL, "vae_steps": 150},
        learning_rate=2e-3,
        vae_rate=3e-3,
        answer="v_prediction",
        dropped=0.0,
        guidance=1.0,
    )
    net, batch = Postop(config, 2, 1, 1), batch_of()
    smooth = torch.nn.functional.avg_pool2d
    batch = {n: smooth(part, 7, 1, 3) * 3 if part.min() < 0 else part for n, part in batch.items()}
    batch["source"] = batch["source"][:1].expand(2, -1, -1, -1)
    batch["target"] = batch["case_target"] = torch.stack([-0.6 + 0 * batch["source"][0], 0.6 + 0 * batch["source"][0]])
    optimizers = net.optimizers()
    for step in range(300):
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator(2000 + step), step)
    net.eval()
    image = net.infer(batch, generator(9)).image
    low, high = image.mean(dim=(1, 2, 3)).tolist()
    # 1.2 apart in truth, 0 where the case is not heeded: all else is the same for both.
    assert high - low > 0.3


def test_what_makes_no_model_is_said():
    for options, reason in [
        ({"features": (16,)}, "two multiples of 8"),
        ({"guidance": -1}, "guidance must lie between"),
        ({"solver": "euler"}, "unknown solver"),
    ]:
        with pytest.raises(ValueError, match=reason):
            PostopConfig(**options)
    with pytest.raises(ValueError, match="it generates slices"):
        Postop(PostopConfig(**SMALL), 3, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion's layout, of few weights."""
    home = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.2,
    )
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae.save_pretrained(home / "vae")
    unet.save_pretrained(home / "unet")
    return home


def test_a_folder_of_stable_diffusion(folder, tmp_path):
    unet = widened(stable_diffusion(str(folder))[1], 5)
    old = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    random = generator()
    latents, prompt = torch.randn((1, 4, 8, 8), generator=random), torch.randn((1, 2, 24), generator=random)
    step = torch.tensor([300])
    with torch.no_grad():
        wanted = old(latents, step, encoder_hidden_states=prompt).sample
        # A channel more that it has not learnt to heed.
        more = torch.cat([latents, torch.rand((1, 1, 8, 8), generator=random)], dim=1)
        assert torch.allclose(unet(more, step, encoder_hidden_states=prompt).sample, wanted, atol=1e-5)
    config = PostopConfig(pretrained=str(folder), vae_steps=0, solver_steps=2)
    net, batch = Postop(config, 2, 1, 1), batch_of()
    assert float(net.scale) == pytest.approx(0.2)
    report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator(), 0)
    assert bool(torch.isfinite(report["loss"]))
    assert net.eval().infer(batch, generator()).image.shape == (2, 1, 32, 32)
    # A run keeps what the networks are, and is loaded without the folder.
    gone = replace(config, pretrained=str(tmp_path / "gone"))
    again = Postop(gone, 2, 1, 1, networks=json.loads(json.dumps(net.networks())))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval().infer(batch, generator()).image, net.infer(batch, generator()).image)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text((folder / "vae" / "config.json").read_text())
    with pytest.raises(InputError, match=r"vae of .* cannot be loaded"):
        stable_diffusion(str(tmp_path))
    with pytest.raises(InputError, match=r"holds no vae/config\.json"):
        stable_diffusion(str(tmp_path / "vae"))


def test_a_folder_of_an_autoencoder_alone(folder, tmp_path):
    shutil.copytree(folder / "vae", tmp_path / "vae")
    net = Postop(PostopConfig(**{**SMALL, "pretrained": str(tmp_path), "vae_steps": 0}), 2, 1, 1)
    assert float(net.scale) == pytest.approx(0.2)
    assert tuple(net.unet.config.block_out_channels) == SMALL["features"]


def sam(folder):
    """A small folder of SAM's layout."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "output_channels": 8,
        "mlp_dim": 16,
        "global_attn_indexes": [0],
        "window_size": 2,
    }
    whole = transformers.SamModel(transformers.SamConfig(vision_config=vision))
    whole.save_pretrained(folder)
    return whole


def test_the_published_recipe_takes_a_step_on_small_networks(folder, tmp_path):
    sam(tmp_path / "sam")
    given = {"pretrained": str(folder), "encoder": str(tmp_path / "sam")}
    model, train = read_recipe("postop-paper", Postop, **given)
    assert train.size == (256, 256)
    net = Postop(model, 2, 1, 1)
    report = net.training_step(batch_of(1, 256), net.optimizers(), lambda loss: loss.backward(), generator(), 0)
    assert bool(torch.isfinite(report["loss"]))


def test_a_folder_that_learnt_another_answer_is_refused(folder, tmp_path):
    folder = Path(shutil.copytree(folder, tmp_path / "sd"))
    given = {**SMALL, "pretrained": str(folder), "answer": "epsilon", "noise_schedule": "scaled_linear"}
    (folder / "scheduler").mkdir()
    for said, option in [
        ({"prediction_type": "v_prediction"}, "--answer v_prediction"),
        ({"beta_schedule": "linear"}, "--noise_schedule linear"),
        ({"num_train_timesteps": 500}, "--noise_steps 500"),
    ]:
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
        with pytest.raises(InputError, match=option):
            Postop(PostopConfig(**given), 2, 1, 1)
    right = {"prediction_type": "epsilon", "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(right))
    Postop(PostopConfig(**given), 2, 1, 1)


def test_a_folder_of_sam(tmp_path):
    whole = sam(tmp_path / "sam")
    encoder = SamEncoder(str(tmp_path / "sam"), 24)
    images = 2 * torch.rand((2, 1, 32, 32), generator=generator()) - 1
    found = encoder(images)
    assert found.shape == (2, 24)
    # The encoder's own weights, not fresh ones.
    seen = encoder.encoder.patch_embed.projection.weight
    assert torch.equal(seen, whole.vision_encoder.patch_embed.projection.weight)
    assert {name for name, part in encoder.named_parameters() if part.requires_grad} == {"head.weight", "head.bias"}
    assert not encoder.train().encoder.training
    # A picture seen upright: what lies at the end of the first axis stands left, of the second axis above.
    shown = []
    encoder.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    corner = torch.zeros(1, 1, 32, 32)
    corner[..., 20:, 24:] = 0.5
    encoder(corner)
    assert shown[0].shape[1] == 3
    assert (float(shown[0].min()), float(shown[0].max())) == pytest.approx((0, 1))
    size = shown[0].shape[-1]
    assert float(shown[0][..., : size // 8, : size // 4].min()) > 0.9
    assert float(shown[0][..., size // 2 :, :].max()) < 0.1
    net = Postop(PostopConfig(**SMALL, encoder=str(tmp_path / "sam")), 2, 1, 1)
    report = net.training_step(batch_of(), net.optimizers(), lambda loss: loss.backward(), generator(), 5)
    assert bool(torch.isfinite(report["loss"]))
    again = Postop(PostopConfig(**SMALL, encoder="gone"), 2, 1, 1, networks=json.loads(json.dumps(net.networks())))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.of_composite(images), net.of_composite(images))
    (tmp_path / "sam" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        SamEncoder(str(tmp_path / "sam"), 24)
    with pytest.raises(InputError, match=r"holds no config\.json"):
        SamEncoder(str(tmp_path), 24)
    assert json.loads((tmp_path / "sam" / "config.json").read_text())["model_type"] == "sam"


def test_only_slices_next_to_each_other_are_neighbours():
    slices = torch.tensor([0.0, 1.0, 3.0, 10.0]).reshape(4, 1)
    found = beside_neighbours(slices, 0.25, torch.tensor([2, 3, 7, 8]))
    assert found.flatten().tolist() == [0.25, 0.75, 4.75, 8.25]
    assert torch.equal(beside_neighbours(slices, 0.25), torch.tensor([[0.25], [1.25], [4.25], [8.25]]))


def test_a_case_without_a_cavity_shows_a_dark_one_within_a_plan():
    query, plan = torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, 1, 8, 8)
    plan[..., 2:5, 2:5] = 1
    found = planned(query, torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), plan)
    assert torch.equal(found, torch.where(plan > 0, -1.0, 0.5))
