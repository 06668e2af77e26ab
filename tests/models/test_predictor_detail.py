"""A prediction that is the scan, carried and changed, shows what the scan does beyond the model's lattice."""

import torch

from whence.data.frame import Frame
from whence.models import find_method
from whence.models.method import Prediction
from whence.models.predictor import Predictor
from whence.space import Grid, Volume


def test_what_is_finer_than_the_lattice_is_carried_but_where_it_is_new(monkeypatch):
    method = find_method("pix2pix")
    net = method(method.config_class(features=(8, 16)), 2, 1, 1)
    texture = torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    image = Volume(texture, Grid((64, 48), torch.eye(3).numpy()))
    predictor = Predictor(net, Frame(2, (2.0, 2.0), (32, 24), 1, 1))
    carried = True

    def infer(batch, generator):
        found = batch["source"].clone()
        found[..., 12:20, 8:16] = -1.0
        # A voxel of the lattice down, two of the scan's.
        field = torch.zeros(1, 2, *found.shape[2:])
        field[:, 0] = 1.0
        found[..., :-1, :] = found[..., 1:, :].clone()
        return Prediction(found, field, -field, carried=carried)

    monkeypatch.setattr(net, "infer", infer)
    sharp = predictor.predict(image)
    carried = False
    blurred = predictor.predict(image)
    wanted = texture[..., 2:62, :]
    errors = [(trace.image.tensor[..., :60, :] - wanted).abs() for trace in (sharp, blurred)]
    # Away from what is new, and from the border, beyond which there is nothing to carry.
    away = (slice(None), slice(None), slice(2, 14), slice(2, 46))
    # What the patch changes of the histogram leaves a little novelty everywhere.
    assert float(errors[0][away].mean()) < 0.04
    assert float(errors[1][away].mean()) > 0.1
    # New is a patch without texture.
    inside = sharp.image.tensor[..., 30:34, 22:26]
    assert float(inside.max() - inside.min()) < 0.3
