"""Conditional templates: they look like the people of their condition, in the middle of them."""

import pytest
import torch

from whence.models import find_method
from whence.models.attributes import Attributes

KNOWN = Attributes(("age",), {"age": (50.0, 20.0)}, {})


def net_of(dims, **options):
    torch.manual_seed(0)
    method = find_method("condtemplate")
    small = {"down": (8, 16, 16), "up": (16, 16, 8), "width": 8, "squarings": 5}
    return method(method.config_class(**{**small, **options}), dims, 1, 1, attributes=KNOWN)


@pytest.mark.parametrize("shape", [(32, 24), (16, 16, 16)])
def test_it_begins_as_the_general_atlas(shape):
    net = net_of(len(shape)).eval()
    atlas = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)) - 0.5
    batch = {"source": atlas, "conditions": torch.tensor([[0.3], [float("nan")]])}
    found = net.infer(batch, torch.Generator())
    assert found.displacement is None
    torch.testing.assert_close(found.image, atlas, atol=0.05, rtol=0)


def test_it_learns_what_a_condition_looks_like():
    """People are discs whose radius grows with age; the templates' areas follow."""
    net = net_of(2, learning_rate=3e-3, smoothness=0.5, mean=2.0, deviation=0.1)
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(24.0) - 11.5, indexing="ij")
    distance = (x.square() + y.square()).sqrt()

    def disc(radius):
        return 1.6 * torch.sigmoid((radius.reshape(-1, 1, 1, 1) - distance) / 0.7) - 0.8

    optimizers = net.optimizers()
    generator = torch.Generator().manual_seed(0)
    atlas = disc(torch.tensor([7.0]))
    for step in range(250):
        age = 2 * torch.rand(4, generator=generator) - 1
        people = disc(7 + 1.5 * age + 0.3 * torch.randn(4, generator=generator))
        batch = {"source": atlas.expand(4, -1, -1, -1), "target": people, "conditions": age[:, None]}
        net.training_step(batch, optimizers, lambda loss: loss.backward(), generator, step)
    asked = {"source": atlas.expand(2, -1, -1, -1), "conditions": torch.tensor([[-0.8], [0.8]])}
    young, old = (net.eval().infer(asked, generator).image > 0).float().sum(dim=(1, 2, 3)).tolist()
    # In truth pi 5.8^2 = 106 and pi 8.2^2 = 211; both 154 if the condition were not heeded.
    assert old > young + 40
