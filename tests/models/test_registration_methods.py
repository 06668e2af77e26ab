"""RegNet, CycleGAN and RegGAN: a step each, traces from source and target, what RegNet learns in seconds."""

import pytest
import torch

from whence import kernels
from whence.cli import main
from whence.data.frame import Frame
from whence.errors import InputError
from whence.field import compose
from whence.models import find_method
from whence.models.evaluator import spatial_error, translate
from whence.models.imse import IMSE, IMSEConfig
from whence.models.predictor import Predictor
from whence.models.regnet import RegNet, RegNetConfig
from whence.space import Grid, Volume
from whence.train.options import read_recipe

SMALL = {"down": (8, 8, 8), "up": (8, 8, 8)}
GAN = {"filters": 4, "blocks": 1, "discriminator_filters": 4, "discriminator_layers": 1}
METHODS = {"regnet": SMALL, "cyclegan": GAN, "reggan": {**GAN, **SMALL}}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(count, shape, seed=0, width=3.0):
    noise = kernels.gaussian(torch.randn((count, 1, *shape), generator=generator(seed)), width)
    return (noise / noise.abs().amax(dim=tuple(range(1, noise.ndim)), keepdim=True)).clamp(-1, 1)


def no_run(name):
    raise InputError(f"expected a run folder; got {name}")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(24, 32), (16, 12, 16)])
def test_a_step_and_a_prediction(name, shape):
    method = find_method(name)
    net = method(method.config_class(**METHODS[name]), len(shape), 1, 1)
    net.bind(no_run)
    batch = {"source": blobs(2, shape), "target": blobs(2, shape, 1)}
    before = [p.clone() for p in net.parameters()]
    report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator())
    assert all(bool(torch.isfinite(value)) for value in report.values())
    changed = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    # Convolutions before an instance normalisation have biases without effect.
    assert sum(changed) > 0.6 * len(changed)
    assert net.validation_step(batch, generator())
    found = net.infer(batch, generator())
    assert found.image.shape == batch["source"].shape
    assert (found.displacement is None) == (name == "cyclegan")
    if name != "regnet":
        predictor = Predictor(net, Frame(len(shape), (1.0,) * len(shape), shape))
        pair = [Volume(batch[c][:1], Grid.regular(shape)) for c in ("source", "target")]
        assert translate(predictor, pair[0]).grid == pair[0].grid
        assert spatial_error(predictor, *pair).map.tensor.shape == (1, 1, *shape)


def test_regnet_learns_a_motion_and_both_fields_belong_together():
    torch.manual_seed(0)
    net = RegNet(RegNetConfig(**SMALL, similarity="mse", smoothness=1e-3, learning_rate=3e-3), 2, 1, 1)
    net.bind(no_run)
    optimizers = net.optimizers()

    def pair(seed):
        image = blobs(4, (48, 48), seed, 1.5)
        shift = torch.tensor([1.5, -1.0]).reshape(1, 2, 1, 1).expand(4, 2, 48, 48)
        return {"source": image, "target": kernels.warp(image, shift)}

    for seed in range(150):
        net.training_step(pair(seed), optimizers, lambda loss: loss.backward(), generator())
    batch = pair(1000)
    net.eval()
    found = net.infer(batch, generator())
    before = (batch["source"] - batch["target"]).square().mean()
    assert float((found.image - batch["target"]).square().mean()) < 0.4 * float(before)
    grid = Grid.regular((48, 48))
    trace = Predictor(net, Frame(2, (1.0, 1.0), (48, 48))).predict(
        Volume(batch["source"][:1], grid), target=Volume(batch["target"][:1], grid)
    )
    assert trace.info["kind"] == "predicted"
    inner = compose(trace.displacement, trace.inverse).tensor[..., 6:-6, 6:-6]
    assert float(inner.abs().mean()) < 0.02
    middle = trace.displacement.tensor[0, :, 12:-12, 12:-12].mean(dim=(1, 2))
    assert torch.allclose(middle, torch.tensor([1.5, -1.0]), atol=0.3)


def test_regnet_needs_a_target_of_the_same_kind():
    net = RegNet(RegNetConfig(**SMALL), 2, 1, 1)
    predictor = Predictor(net, Frame(2, (1.0, 1.0), (16, 16)))
    image = Volume(blobs(1, (16, 16)), Grid.regular((16, 16)))
    with pytest.raises(InputError, match="regnet compares the image with a target"):
        predictor.predict(image)
    with pytest.raises(InputError, match="a target with 1 channel"):
        predictor.predict(image, target=Volume(torch.rand(1, 2, 16, 16), image.grid))
    with pytest.raises(InputError, match="the target is 3D; the image is 2D"):
        predictor.predict(image, target=Volume(torch.rand(1, 1, 8, 8, 8), Grid.regular((8, 8, 8))))
    with pytest.raises(ValueError, match="as many channels"):
        RegNet(RegNetConfig(**SMALL), 2, 1, 2)


def test_an_evaluator_and_a_translator_are_runs():
    frame = Frame(2, (1.0, 1.0), (16, 16))
    evaluator = Predictor(IMSE(IMSEConfig(network="unet", features=(4, 4)), 2, 1, 1), frame)
    cyclegan = find_method("cyclegan")
    runs = {"e": evaluator, "t": Predictor(cyclegan(cyclegan.config_class(**GAN), 2, 1, 1), frame)}
    batch = {"source": blobs(2, (16, 16)), "target": blobs(2, (16, 16), 1)}
    for options in ({"similarity": "e"}, {"similarity": "ncc", "similarity_window": 5, "translator": "t"}):
        net = RegNet(RegNetConfig(**SMALL, **options), 2, 1, 1)
        count = len(net.state_dict())
        net.bind(runs.__getitem__)
        # What other runs contribute is neither trained nor saved with this one.
        assert len(net.state_dict()) == count
        frozen = [p.clone() for run in runs.values() for p in run.method.parameters()]
        report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator())
        assert bool(torch.isfinite(report["loss"]))
        assert float(net.head.conv.weight.grad.abs().max()) > 0
        left = [p for run in runs.values() for p in run.method.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(frozen, left, strict=True))
    with pytest.raises(InputError, match="compares a source with a target alone"):
        RegNet(RegNetConfig(**SMALL, similarity="t"), 2, 1, 1).bind(runs.__getitem__)
    with pytest.raises(InputError, match=r"e sees 2D images of 1 channel\(s\); expected 3D ones of 1"):
        RegNet(RegNetConfig(**SMALL, similarity="e"), 3, 1, 1).bind(runs.__getitem__)
    with pytest.raises(InputError, match="similarity 'ncx' is none of ncc"):
        RegNet(RegNetConfig(**SMALL, similarity="ncx"), 2, 1, 1).bind(no_run)
    with pytest.raises(InputError, match="translates no image"):
        RegNet(RegNetConfig(**SMALL, translator="r"), 2, 1, 1).bind(
            {"r": Predictor(RegNet(RegNetConfig(**SMALL), 2, 1, 1), frame)}.__getitem__
        )


def test_from_the_command_line(tmp_path, capsys):
    from whence.data.phantom import write_phantom

    table = write_phantom("multimodal", 6, 32, tmp_path / "data")
    few = ["--steps=2", "--save_every=2", "--batch_size=2", "--threads=1", "--accelerator=cpu"]
    small = [f"--{name}={list(value)}" for name, value in SMALL.items()]
    data = ["--data", str(table), "--out", str(tmp_path / "run")]
    assert main(["fit", "regnet", *data, *few, *small, "--similarity", "nothing"]) == 2
    assert "similarity 'nothing' is none of" in capsys.readouterr().err
    assert main(["fit", "regnet", *data, *few, *small, "--similarity", "mind"]) == 0
    row = table.parent / "case0005"
    pair = [str(row / "source.nii.gz"), "--target", str(row / "target.nii.gz")]
    assert main(["predict", str(tmp_path / "run"), *pair, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "displacement.nii.gz").is_file()
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(table), "--out", str(tmp_path / "results")]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_recipes(name):
    assert read_recipe(f"{name}-cpu", find_method(name))[1].steps >= 100
