"""Two modalities are told from one, masks on either side do no harm, and slices are held more stiffly."""

import pytest
import torch

from whence.data.phantom.multimodal import make_case
from whence.losses import across_modalities, make_similarity
from whence.metrics import displacement_error
from whence.registration import DiffeomorphicSettings, register


@pytest.fixture(scope="module")
def person():
    return make_case(0, 0, 64, 2)


def error(found, person):
    """Mean distance to the true displacement in the brain, mm."""
    distance = displacement_error(found.displacement, person.displacement)
    return float(distance[person.target_brain.tensor > 0].mean())


@pytest.mark.parametrize("masks", [(), ("fixed_mask",), ("fixed_mask", "moving_mask")])
@pytest.mark.parametrize(("moving", "chosen"), [("source", "mi"), ("counterpart", "ncc")])
def test_the_similarity_is_chosen_and_serves(person, moving, chosen, masks):
    brains = {"fixed_mask": person.target_brain, "moving_mask": person.source_brain}
    given = {name: brains[name].with_tensor((brains[name].tensor > 0).float()) for name in masks}
    found = register(person.target, getattr(person, moving), **given)
    assert found.similarity == chosen
    # From 5 to 10 mm; a voxel is 3.6 mm. An unlucky mask had once left 26.
    assert error(found, person) < 3.0


def test_a_similarity_that_is_given_is_taken(person):
    assert register(person.target, person.source, make_similarity("nmi")).similarity is None


def test_what_compares_across_modalities():
    assert [across_modalities(make_similarity(name)) for name in ("ncc", "mse", "mi", "nmi", "mind")] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert across_modalities(make_similarity("mi", bins=16))

    class Own:
        across_modalities = True

        def __call__(self, a, b, mask=None):
            return torch.zeros(())

    assert across_modalities(Own())


def test_stiffness_by_dimensions_and_similarity_unless_given():
    settings = DiffeomorphicSettings()
    assert settings.smoothing(3, False) < settings.smoothing(3, True) < settings.smoothing(2, False)
    assert DiffeomorphicSettings(smooth_total=0.3).smoothing(2, True) == 0.3
