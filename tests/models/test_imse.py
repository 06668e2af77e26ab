"""IMSE: its label, its four uses on tensors and volumes, training from sources alone, in 2D and 3D."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from whence import kernels
from whence.data.frame import Frame
from whence.data.perturbation import Perturbation
from whence.errors import InputError
from whence.field import Displacement, invert, warp
from whence.metrics import displacement_error
from whence.models import find_method
from whence.models.evaluator import evaluator_similarity, spatial_error, translate, with_novelty
from whence.models.imse import IMSE, IMSEConfig
from whence.models.predictor import Predictor
from whence.registration import register_diffeomorphic
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.options import read_recipe

TINY = {"filters": 4, "blocks": 1, "features": (8, 8, 16), "most_points": 6}
KINDS = [{}, {"network": "unet"}, {"network": "unet", "conditional": True, "approach": True}]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, shape, seed=0):
    """Smooth blobs in [-1, 1]."""
    noise = kernels.gaussian(torch.randn((count, 1, *shape), generator=generator(seed)), 2.0)
    return (noise / noise.abs().amax(dim=tuple(range(1, noise.ndim)), keepdim=True)).clamp(-1, 1)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("shape", [(32, 30), (16, 12, 14)])
def test_a_step_and_the_uses_of_any_kind(options, shape):
    net = IMSE(IMSEConfig(**TINY, **options, remap_reference=0.5), len(shape), 1, 1)
    batch = {"source": images(2, shape)}
    before = [p.clone() for p in net.parameters()]
    report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator())
    assert torch.isfinite(report["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    moving = images(2, shape, 1).requires_grad_()
    error = net.spatial_error(moving, batch["source"])
    assert error.shape == moving.shape
    error.abs().mean().backward()
    assert float(moving.grad.abs().max()) > 0
    translated = net.translate(images(2, shape, 1), batch["source"])
    assert float(translated.detach().abs().max()) <= 1
    found = net.infer({"source": batch["source"], "target": images(2, shape, 1)}, generator())
    assert set(found.extras) == {"spatial error"}


def test_the_label_is_half_the_difference_and_nothing_else_is_needed():
    """A network that answered the label itself would have no loss; the translation undoes it."""
    net = IMSE(IMSEConfig(**TINY, remap="none", rotation=0, translation=0, scaling=0, elastic=0), 2, 1, 1)
    net.difference = lambda image, reference: (reference - image) / 2
    image, other = images(3, (24, 24)), images(3, (24, 24), 1)
    assert float(net._loss(image, generator())) < 1e-6
    assert torch.allclose(net.translate(image, other), image, atol=1e-6)
    assert IMSE.columns == ("source",)


def test_the_reference_is_told_by_its_intensities():
    net = IMSE(IMSEConfig(**TINY), 2, 1, 1)
    known = images(2, (32, 32)) ** 2 * 2 - 1
    net._remember(known)
    other = -known
    assert net.knows(known) < 0.01 < net.knows(other)
    forward = net.spatial_error(other, known)
    assert torch.equal(forward, net.difference(other, known))
    # the other way round the same two meet the network in the same order
    assert torch.equal(net.spatial_error(known, other), -forward)


def test_published_recipe_is_the_published_setting():
    config, train = read_recipe("imse-paper", find_method("imse"))
    assert (config.network, config.filters, config.blocks, config.conditional) == ("resnet", 64, 9, False)
    assert config.perturbation == Perturbation(3.0, 0.08, 0.08, 120.0, 12.0)
    assert (train.size, train.batch_size, config.learning_rate, config.beta1) == ((240, 240), 8, 1e-4, 0.5)
    for name in ("imse-cpu", "imse-cpu-3d"):
        assert read_recipe(name, find_method("imse"))[0].conditional


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"least_points": 0}, "least_points <= most_points"),
        ({"least_points": 5, "most_points": 4}, "least_points <= most_points"),
        ({"remap_reference": 2.0}, "a share, 0 to 1"),
        ({"rotation": -1.0}, "rotation must not be negative"),
        ({"features": ()}, "at least 1"),
    ],
)
def test_options_that_make_no_sense(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        IMSEConfig(**options)


@pytest.fixture(scope="module")
def evaluator():
    """A small evaluator after half a minute's training on one modality of made images."""
    torch.manual_seed(0)
    config = IMSEConfig(
        network="unet",
        features=(8, 16, 16),
        conditional=True,
        approach=True,
        most_points=6,
        translation=0.04,
        learning_rate=3e-3,
    )
    net = IMSE(config, 2, 1, 1)
    optimizers, draws = net.optimizers(), generator()
    for step in range(120):
        net.training_step({"source": regions(8, step)[0]}, optimizers, lambda loss: loss.backward(), draws)
    return Predictor(net.eval(), Frame(2, (1.0, 1.0), (48, 48)))


def regions(count, seed):
    """Images of five tissues in two contrasts, (count, 1, 48, 48) each, the second reversed."""
    field = kernels.gaussian(torch.randn((count, 1, 60, 60), generator=generator(seed)), 3.0)[..., 6:-6, 6:-6]
    field = field / field.std(dim=(2, 3), keepdim=True)
    labels = torch.bucketize(field, torch.tensor([-1.0, -0.3, 0.3, 1.0]))
    noise = 0.02 * torch.randn((2, *labels.shape), generator=generator(seed + 1))
    first, second = torch.tensor([-0.9, -0.3, 0.1, 0.5, 0.9]), torch.tensor([0.9, 0.0, -0.2, -0.5, -0.9])
    # Voxels at borders hold a share of both tissues, as a scanner's do.
    seen = [kernels.gaussian(levels[labels], 0.8) for levels in (first, second)]
    return (seen[0] + noise[0]).clamp(-1, 1), (seen[1] + noise[1]).clamp(-1, 1)


def local_motion(seed):
    """A bump of 3 voxels at a random place, zero elsewhere."""
    rng = np.random.default_rng(seed)
    middle, angle = rng.uniform(14, 34, 2), rng.uniform(0, 2 * np.pi)
    here = np.stack(np.meshgrid(np.arange(48), np.arange(48), indexing="ij")) - middle.reshape(2, 1, 1)
    bump = 3 * np.exp(-0.5 * (here**2).sum(axis=0) / 6.0**2)
    field = np.stack([np.cos(angle) * bump, np.sin(angle) * bump]).astype(np.float32)
    return Displacement(torch.from_numpy(field)[None], Grid.regular((48, 48)))


def test_the_map_is_dark_where_aligned_and_ranks_regions_by_their_displacement(evaluator):
    grid = Grid.regular((48, 48))
    ranks, aligned, moved = [], [], []
    for seed in range(500, 512):
        first, second = (Volume(image, grid) for image in regions(1, seed))
        field = local_motion(seed)
        still = spatial_error(evaluator, second, first).map
        found = spatial_error(evaluator, warp(second, field), first).map
        truth = field.magnitude()
        near, far = truth > 1.5, truth < 0.2
        aligned.append(float(still.tensor[near].mean()))
        moved.append((float(found.tensor[near].mean()), float(found.tensor[far].mean())))
        blocks = [torch.nn.functional.avg_pool2d(t, 12).flatten() for t in (truth, found.tensor)]
        ranks.append(spearmanr(*blocks).statistic)
    near, far = np.mean(moved, axis=0)
    # what a seconds' training reaches; the trained recipe is held to 0.8 in the bench
    assert near > 3 * np.mean(aligned)
    assert near > 3 * far
    assert np.mean(ranks) > 0.6


def test_similarity_prefers_alignment_and_leads_there(evaluator):
    similarity = evaluator_similarity(evaluator)
    assert not any(p.requires_grad for p in evaluator.method.parameters())
    first, second = regions(2, 600)
    shift = torch.zeros(2, 2, 48, 48)
    shift[:, 0] = 2.0
    away = kernels.warp(second, shift)
    assert float(similarity(away, first)) > 2 * float(similarity(second, first))
    step = torch.zeros((2, 2, 1, 1), requires_grad=True)
    for _ in range(40):
        loss = similarity(kernels.warp(away, step.expand(2, 2, 48, 48)), first)
        (gradient,) = torch.autograd.grad(loss, step)
        step = (step - 0.15 * gradient.sign()).detach().requires_grad_()
    found = step.detach().mean(dim=0).flatten()
    assert torch.allclose(found, torch.tensor([-2.0, 0.0]), atol=0.5)
    left = torch.zeros(1, 1, 48, 48)
    left[..., :24] = 1
    whole = similarity(away, first)
    parts = (similarity(away, first, left), similarity(away, first, 1 - left))
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, rel=1e-4)


def test_translation_keeps_the_source_geometry(evaluator):
    grid = Grid.regular((48, 48))
    first, second = (Volume(image, grid) for image in regions(1, 700))
    field = Displacement(torch.full((1, 2, 48, 48), 1.5), grid)
    reference = warp(first, field)
    found = translate(evaluator, second, reference)
    error = (found.tensor - first.tensor).abs().mean()
    assert float(error) < 0.6 * float((reference.tensor - first.tensor).abs().mean())


def test_other_grids_slices_and_novelty(evaluator):
    grid = Grid.regular((48, 48))
    first, second = (Volume(image, grid) for image in regions(1, 800))
    still = Displacement.identity(grid)
    trace = Trace.build(second, first, still, still, method="made")
    judged = with_novelty(trace, evaluator)
    assert judged.info["novelty"] == "by imse"
    assert float(judged.novelty.tensor.min()) >= 0
    assert float(judged.novelty.tensor.max()) <= 1
    moved = with_novelty(Trace.build(warp(second, local_motion(1)), first, still, still, method="made"), evaluator)
    assert float(moved.novelty.tensor.mean()) > float(judged.novelty.tensor.mean())
    # a volume goes through slice by slice
    stack = [
        Volume(v.tensor[..., None].expand(1, 1, 48, 48, 3).clone(), Grid.regular((48, 48, 3))) for v in (second, first)
    ]
    flat, volume = spatial_error(evaluator, second, first), spatial_error(evaluator, *stack)
    assert torch.allclose(volume.map.tensor[..., 1], flat.map.tensor, atol=1e-5)
    similarity = evaluator_similarity(evaluator)
    assert float(similarity(stack[0].tensor, stack[1].tensor)) == pytest.approx(
        float(similarity(second.tensor, first.tensor)), rel=1e-4
    )
    # the same volume stored with its slices first and backwards
    grid = Grid((3, 48, 48), np.array([[0, 1.0, 0, 0], [0, 0, -1.0, 47.0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    stored = [v.tensor.permute(0, 1, 4, 2, 3).flip(4) for v in stack]
    other = evaluator_similarity(evaluator, grid)
    assert float(other(*stored)) == pytest.approx(float(similarity(stack[0].tensor, stack[1].tensor)), rel=1e-4)
    with pytest.raises(InputError, match="expects 2D images of 1 channel"):
        similarity(torch.zeros(1, 2, 48, 48), torch.zeros(1, 2, 48, 48))


def test_registration_by_an_evaluator_undoes_a_motion(evaluator):
    grid = Grid.regular((48, 48))
    before, after = [], []
    for seed in range(700, 704):
        first, second = (Volume(image, grid) for image in regions(1, seed))
        truth = local_motion(seed)
        # the other modality, moved; what undoes it is the inverse
        found, _ = register_diffeomorphic(first, warp(second, truth), evaluator_similarity(evaluator))
        near = invert(truth).magnitude() > 1.5
        before.append(float(invert(truth).magnitude()[near].mean()))
        after.append(float(displacement_error(found, invert(truth))[near].mean()))
    assert np.mean(after) < 0.6 * np.mean(before)


@pytest.mark.parametrize("shape", [(45, 43), (48, 48)])
def test_sizes_that_do_not_halve_evenly_see_no_band(evaluator, shape):
    first, second = (image[..., : shape[0], : shape[1]] for image in regions(1, 800))
    found = evaluator.method.spatial_error(second, first).abs()
    assert float(found[..., -3:, :].mean()) < 3 * float(found[..., 8:-8, 8:-8].mean()) + 0.02


def test_runs_that_cannot():
    other = Predictor(SimpleNamespace(name="other"), Frame(2, (1.0, 1.0), (8, 8)))
    image = Volume(torch.rand(1, 1, 8, 8), Grid.regular((8, 8)))
    with pytest.raises(InputError, match="'other' estimates no spatial error"):
        spatial_error(other, image, image)
    with pytest.raises(InputError, match="'other' translates no image"):
        translate(other, image, image)
    able = Predictor(IMSE(IMSEConfig(**TINY), 2, 1, 1), Frame(2, (1.0, 1.0), (8, 8)))
    with pytest.raises(InputError, match="takes the appearance of a reference image"):
        translate(able, image)
    with pytest.raises(InputError, match="expects one image with 1 channel"):
        spatial_error(able, Volume(torch.rand(1, 2, 8, 8), image.grid), image)
