"""Two modalities are told from one, masks on either side do no harm, and slices are held more stiffly."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.data.phantom.multimodal import make_case
from whence.losses import across_modalities, make_similarity
from whence.metrics import displacement_error
from whence.registration import DiffeomorphicSettings, register, register_diffeomorphic
from whence.registration.alike import alike
from whence.space import Grid, Volume


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


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_a_mask_on_one_side_that_shows_a_part(person, side):
    brain = person.target_brain if side == "fixed" else person.source_brain
    kept = torch.from_numpy(ndimage.binary_erosion(brain.tensor[0, 0].numpy() > 0, iterations=5)).float()
    part = brain.with_tensor(kept[None, None])
    found = register(person.target, person.counterpart, **{f"{side}_mask": part})
    assert found.similarity == "ncc"
    assert error(found, person) < 3.0


def test_a_volume_of_one_slice_is_that_slice(person):
    def thick(volume):
        return Volume(volume.tensor[..., None], Grid.regular((*volume.grid.shape, 1), (*volume.grid.spacing, 1.0)))

    def flat(volume):
        return Volume(volume.tensor, Grid.regular(volume.grid.shape, tuple(volume.grid.spacing)))

    pair = person.target, person.counterpart
    one, other = (register_diffeomorphic(*map(form, pair))[0].magnitude() for form in (flat, thick))
    # Nothing but rounding, which the optimisation lets grow.
    assert float((one[..., None] - other).abs().mean()) < 0.1 * float(one.mean())


def test_alike_in_volumes_and_where_there_is_nothing_to_tell():
    shape = (16, 18, 14)
    ramp = torch.linspace(-0.5, 1, 16)[:, None, None].expand(shape)[None, None].contiguous()
    image = Volume(ramp, Grid.regular(shape))
    assert alike(image, image, np.eye(4), None, None)
    assert not alike(image, image.with_tensor(0.5 - ramp), np.eye(4), None, None)
    assert alike(image, image.with_tensor(torch.zeros_like(ramp)), np.eye(4), None, None)
    away = np.eye(4)
    away[0, 3] = 100
    assert alike(image, image, away, None, image.with_tensor(torch.ones_like(ramp)))


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
    assert across_modalities(partial(Own()))


def test_stiffness_by_dimensions_and_similarity_unless_given():
    settings = DiffeomorphicSettings()
    assert settings.smoothing(3, False) < settings.smoothing(3, True) < settings.smoothing(2, False)
    assert DiffeomorphicSettings(smooth_total=0.3).smoothing(2, True) == 0.3
