"""Sources and targets of other channel counts, Pix2Pix's own options, what a lattice does to novelty."""

import pytest
import torch

from whence.data.frame import Frame
from whence.models import Method, Prediction, find_method
from whence.models.predictor import Predictor
from whence.models.tracetrans import TraceTrans, TraceTransConfig
from whence.space import Grid, Volume
from whence.train.options import read_recipe

SMALL = {"features": (8, 8, 8), "discriminator_filters": 4, "discriminator_layers": 1}


@pytest.mark.parametrize(("source", "target"), [(2, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("similarity", ["ncc", "nmi", "mind", "mse"])
def test_other_channels_than_the_source(source, target, similarity):
    config = TraceTransConfig(**SMALL, similarity=similarity, adversarial=0.01, deform_l1=0.1)
    net = TraceTrans(config, 2, source, target)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "source": torch.rand(2, source, 32, 32, generator=generator) * 2 - 1,
        "target": torch.rand(2, target, 32, 32, generator=generator) * 2 - 1,
        "registered": torch.rand(2, source, 32, 32, generator=generator) * 2 - 1,
    }
    report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator)
    assert torch.isfinite(report["loss"])
    frame = Frame(2, (1.0, 1.0), (32, 32), source, target)
    trace = Predictor(net, frame).predict(Volume(batch["source"][:1], Grid.regular((32, 32))))
    assert trace.image.tensor.shape == (1, target, 32, 32)
    assert trace.novelty.tensor.shape == (1, 1, 32, 32)


def test_a_compared_channel_that_is_not_there():
    with pytest.raises(ValueError, match="compared_channel 2 of a source of 2 channels"):
        TraceTrans(TraceTransConfig(**SMALL, compared_channel=2), 2, 2, 1)


def test_pix2pix_is_translation_alone():
    pix2pix = find_method("pix2pix")
    config, train = read_recipe("pix2pix-cpu", pix2pix)
    assert (config.alpha, config.gamma, config.stream) == (1.0, 0.0, "single")
    assert config.adversarial > 0
    assert not pix2pix(config, 2, 1, 1).deforms
    assert train.steps == read_recipe("tracetrans-cpu", find_method("tracetrans"))[1].steps
    with pytest.raises(ValueError, match="pix2pix has alpha 1, gamma 0 and a single stream"):
        pix2pix.config_class(stream="dual")


class Same(Method):
    """The source itself, said to have moved by a constant; its inverse is left to be computed."""

    name = "same"

    def __init__(self, shift):
        super().__init__()
        self.shift = shift
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def infer(self, batch, generator):
        source = batch["source"]
        field = torch.full((len(source), source.ndim - 2, *source.shape[2:]), self.shift)
        return Prediction(source, field, extras={"copy": source})


def blobs():
    generator = torch.Generator().manual_seed(3)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 24, generator=generator), size=(96, 96))
    return Volume(image + 0.05 * torch.rand(1, 1, 96, 96, generator=generator), Grid.regular((96, 96)))


def test_a_missing_inverse_is_computed():
    volume = blobs()
    trace = Predictor(Same(1.5), Frame(2, (2.0, 2.0), (48, 48))).predict(volume)
    assert trace.info["kind"] == "predicted"
    # 1.5 voxels of the 2 mm lattice are 3 mm.
    assert torch.allclose(trace.displacement.tensor, torch.tensor(3.0), atol=1e-4)
    assert torch.allclose(trace.inverse.tensor, torch.tensor(-3.0), atol=1e-3)
    assert trace.extras["copy"].grid == volume.grid


def test_blur_of_a_coarser_lattice_is_no_novelty():
    trace = Predictor(Same(0.0), Frame(2, (2.0, 2.0), (48, 48))).predict(blobs())
    assert float(trace.novelty.tensor.mean()) < 0.01
