"""An image that the model's voxels make too large for the memory: the sentence says why."""

import pytest
import torch

from whence.data.frame import Frame
from whence.errors import InputError
from whence.models import find_method
from whence.models.predictor import Predictor
from whence.space import Grid, Volume


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_what_does_not_fit_is_said(monkeypatch, error):
    method = find_method("pix2pix")
    net = method(method.config_class(features=(8, 16)), 2, 1, 1)

    def infer(batch, generator):
        raise error

    monkeypatch.setattr(net, "infer", infer)
    image = Volume(torch.rand(1, 1, 40, 32), Grid((40, 32), torch.eye(3).numpy()))
    with pytest.raises(InputError, match=r"at the model's 0\.5x0\.5 mm the image has \d+x\d+ voxels"):
        Predictor(net, Frame(2, (0.5, 0.5), (16, 16), 1, 1)).predict(image)


def test_other_errors_stay_what_they_are(monkeypatch):
    method = find_method("pix2pix")
    net = method(method.config_class(features=(8, 16)), 2, 1, 1)
    monkeypatch.setattr(net, "infer", lambda batch, generator: torch.zeros(2) @ torch.zeros(3))
    image = Volume(torch.rand(1, 1, 16, 16), Grid((16, 16), torch.eye(3).numpy()))
    with pytest.raises(RuntimeError, match="size"):
        Predictor(net, Frame(2, (1.0, 1.0), (16, 16), 1, 1)).predict(image)
