"""The third stage of Diff-Def alone, on what another run has learnt in the first two."""

import pytest
import torch
from diffdef_small import batch_of, generator, net_of

from whence.data.frame import Frame
from whence.errors import InputError
from whence.models import find_method
from whence.models.diffdef import DiffDef
from whence.models.predictor import Predictor

FRAME = Frame(2, (1.0, 1.0), (16, 16))


def bound(net, known, frame=FRAME):
    net.bind({"known": Predictor(known, FRAME)}.__getitem__, frame)
    return net


def test_the_first_two_stages_are_taken_and_fall_away():
    known = net_of(2)
    known.scale.fill_(3.0)
    net = bound(net_of(2, seed=1, pretrained="known", told=True, maps=2), known)
    assert DiffDef.stages(net.config) == ()
    report = net.training_step(batch_of((16, 16)), net.optimizers(), lambda loss: loss.backward(), generator(), 0)
    assert set(report) == {"loss", "noise", "morphology", "bending"}
    for part in ("vae", "registration"):
        own, other = (getattr(each, part).state_dict() for each in (net, known))
        assert all(torch.equal(own[name], other[name]) for name in other)
    assert float(net.scale) == 3
    # The decoder of fields begins as the decoder of images that was taken, but for a step of AdamW.
    own, other = (
        torch.cat([p.detach().flatten() for p in part.parameters()])
        for part in (net.fields.first, known.vae.net.post_quant_conv)
    )
    assert 0 < float((own - other).abs().max()) < 1.1 * net.config.learning_rate


def test_what_cannot_be_taken_is_said():
    with pytest.raises(InputError, match=r"trained with down \(8, 16\); expected \(8, 24\), as here"):
        bound(net_of(2, pretrained="known", down=(8, 24)), net_of(2))
    with pytest.raises(InputError, match=r"known sees 2D images of 1 channel\(s\); expected a run of 3D images"):
        bound(net_of(3, pretrained="known"), net_of(2))
    coarse = Frame(2, (2.5, 2.5), (16, 16))
    with pytest.raises(InputError, match=r"known was trained on voxels of 1x1 mm; expected 2\.5x2\.5 mm"):
        bound(net_of(2, pretrained="known"), net_of(2), coarse)
    sides = Frame(2, (1.0, 1.0), (16, 16), plane="sagittal")
    with pytest.raises(InputError, match="known was trained on axial slices; expected sagittal ones"):
        bound(net_of(2, pretrained="known"), net_of(2), sides)
    other = find_method("regnet")
    with pytest.raises(InputError, match="known is a run of 'regnet'; expected one of 'diffdef'"):
        bound(net_of(2, pretrained="known"), other(other.config_class(down=(4, 8), up=(8, 4)), 2, 1, 1))
