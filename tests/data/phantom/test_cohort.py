"""The cohort phantom: laws of age, exact maps, true means, missing conditions."""

import numpy as np
import pytest
import torch

from whence.data.pairs import read_pairs
from whence.data.phantom import write_phantom
from whence.data.phantom.cohort import GENERAL, make_case, make_reference, references
from whence.data.phantom.lifespan import CSF, GREY, VENTRICLES, lifespan, traits_of
from whence.field import compose, jacobian_determinant, warp
from whence.metrics import label_overlap

SIZES = [(2, 64), (3, 40)]


@pytest.mark.parametrize(("dims", "size"), SIZES)
def test_age_does_what_it_is_known_to_do(dims, size):
    ages = ("mean_18", "mean_42", "mean_66", "mean_90")
    young, *_, old = means = [make_reference(name, size, dims) for name in ages]
    volumes = [m.conditions["true_volume"] for m in means]
    assert volumes == sorted(volumes)
    assert volumes[-1] > 1.6 * volumes[0]
    shares = [lifespan(size, dims).labels(lifespan(size, dims).shares(m.displacement)) for m in (young, old)]
    # Ventricles and the fluid outside gain what the cortex loses.
    for label, sign in ((VENTRICLES, 1), (CSF, 1), (GREY, -1)):
        assert sign * ((shares[1] == label).sum() - (shares[0] == label).sum()) > 0
    assert [m.conditions["age"] for m in means] == [18, 42, 66, 90]
    # Of one age, by the ventricles alone.
    less, more = (make_reference(f"mean_54_{rank}", size, dims).conditions for rank in (-1, 1))
    assert more["ventricular_volume"] > 1.1 * less["ventricular_volume"]


@pytest.mark.parametrize(("dims", "size"), SIZES)
def test_a_person_is_the_atlas_under_the_true_map(dims, size):
    person, general = make_case(0, 3, size, dims), make_reference(GENERAL, size, dims)
    assert min(float(jacobian_determinant(f).min()) for f in (person.displacement, person.inverse)) >= 0.05
    around = compose(person.displacement, person.inverse).tensor.abs()
    assert float(around.mean()) < 0.02
    carried = warp(general.target_labels, person.displacement, mode="label")
    still = label_overlap(general.target_labels, person.target_labels, [VENTRICLES, GREY])
    found = label_overlap(carried, person.target_labels, [VENTRICLES, GREY])
    # What is lost is lost at tissue's borders, which are drawn anew on voxels of 2.5 to 4 mm.
    for label in (VENTRICLES, GREY):
        assert found[label][0] > max(0.75, still[label][0])


def test_the_mean_of_people_is_the_true_mean():
    people, brain = [make_case(5, index, 32, 2) for index in range(40)], lifespan(32, 2)
    own = []
    for person in people:
        velocity = brain.velocity(traits_of(person.conditions["age"]))
        own.append((person.displacement.tensor - brain.maps(velocity)[0].tensor)[0].numpy() * brain.spacing)
    mean, deviation = np.mean(own, axis=0), np.std(own, axis=0)
    # Of forty people the mean is off by a sixth of the deviation.
    assert float(np.sqrt((mean**2).mean())) < 2 * float(deviation.mean()) / np.sqrt(40)


def test_the_same_bytes_at_each_call():
    one, again, other = make_case(1, 2, 40, 2), make_case(1, 2, 40, 2), make_case(1, 3, 40, 2)
    assert torch.equal(one.target.tensor, again.target.tensor)
    assert not torch.equal(one.target.tensor, other.target.tensor)


def test_the_tables(tmp_path):
    table = write_phantom("cohort", 40, 32, tmp_path)
    rows = read_pairs(table)
    assert len(rows) == 40
    assert {row.path("source").relative_to(tmp_path).as_posix() for row in rows} == {"general/image.nii.gz"}
    lacking = {name: [r.split for r in rows if name not in r.conditions] for name in ("age", "ventricular_volume")}
    assert all(splits and set(splits) == {"train"} for splits in lacking.values())
    assert not any({"age", "ventricular_volume"}.isdisjoint(row.conditions) for row in rows)
    means = read_pairs(tmp_path / "means.csv")
    assert len(means) == len(references()) - 1
    alone = [row for row in means if "ventricular_volume" not in row.conditions]
    assert [row.conditions["age"] for row in alone] == list(range(18, 91, 6))
    assert all(row.conditions["true_volume"] > 0 and row.path("displacement").is_file() for row in means)
    before = table.read_bytes()
    assert write_phantom("cohort", 40, 32, tmp_path).read_bytes() == before
