"""The multimodal phantom: the same head twice, fields that undo each other, contrasts as they are known."""

import csv

import numpy as np
import pytest
import torch

from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.data.phantom.modalities import CSF, GREY, LABEL_NAMES, SCALP, SKULL, VENTRICLES, WHITE
from whence.data.phantom.multimodal import make_case
from whence.errors import InputError
from whence.field import compose, folding, warp
from whence.losses import normalised_mutual_information
from whence.metrics import label_overlap


@pytest.fixture(scope="module")
def case():
    return make_case(0, 1, 96, 2)


def mean(volume, labels, label):
    return float(volume.numpy()[labels.numpy() == label].mean())


def test_displacement_and_inverse_undo_each_other(case):
    brain = case.target_brain.tensor > 0
    error = compose(case.displacement, case.inverse).magnitude()[brain]
    # hundredths of a voxel of 2.4 mm, from linear interpolation
    assert float(error.mean()) < 0.05
    assert folding(case.displacement) == 0
    assert folding(case.inverse) == 0


def test_the_field_carries_images_labels_and_points(case):
    carried = warp(case.source_labels, case.displacement, mode="nearest")
    overlap = label_overlap(carried, case.target_labels, sorted(LABEL_NAMES))
    assert set(overlap) == set(LABEL_NAMES)
    # outer CSF is hardly a voxel wide
    assert all(dice > (0.7 if label == CSF else 0.85) for label, (dice, _) in overlap.items())
    untouched = label_overlap(case.source_labels, case.target_labels, sorted(LABEL_NAMES))
    assert np.mean([d for d, _ in untouched.values()]) < np.mean([d for d, _ in overlap.values()]) - 0.2
    assert np.abs(case.displacement(case.target_points) - case.source_points).max() < 1e-6
    there = case.inverse(case.source_points)
    assert np.linalg.norm(there - case.target_points, axis=1).mean() < 0.1


def test_the_counterparts_lie_where_they_say(case):
    def nmi(a, b, mask):
        scaled = [v.tensor / v.tensor.quantile(0.995) * 2 - 1 for v in (a, b)]
        return float(normalised_mutual_information(scaled[0].clamp(-1, 1), scaled[1].clamp(-1, 1), mask.tensor))

    apart = nmi(case.source, case.target, case.source_brain)
    assert nmi(case.source, case.counterpart, case.source_brain) > 1.5 * apart
    assert nmi(case.registered, case.target, case.target_brain) > 1.5 * apart


def test_contrasts(case):
    labels, t1, t2 = case.source_labels, case.source, case.counterpart
    assert mean(t1, labels, VENTRICLES) < mean(t1, labels, GREY) < mean(t1, labels, WHITE)
    assert mean(t2, labels, WHITE) < mean(t2, labels, GREY) < mean(t2, labels, VENTRICLES)
    ct = make_case(0, 1, 96, 2, source="ct").source
    assert mean(ct, labels, SKULL) > 2 * mean(ct, labels, GREY)
    assert mean(ct, labels, WHITE) < mean(ct, labels, GREY)
    assert mean(ct, labels, SCALP) < mean(ct, labels, GREY)


def test_modalities_do_not_change_the_geometry(case):
    turned = make_case(0, 1, 96, 2, source="t2", target="t1")
    assert torch.equal(turned.displacement.tensor, case.displacement.tensor)
    assert torch.equal(turned.source.tensor, case.counterpart.tensor)
    assert torch.equal(turned.target.tensor, case.registered.tensor)
    assert torch.equal(turned.source_labels.tensor, case.source_labels.tensor)


def test_three_dimensions():
    case = make_case(0, 0, 32, 3)
    assert case.source.grid.shape == (32, 32, 32)
    assert set(case.source_labels.tensor.unique().tolist()) == {0, *LABEL_NAMES}
    brain = case.target_brain.tensor > 0
    # voxels of 7 mm
    assert float(compose(case.displacement, case.inverse).magnitude()[brain].mean()) < 0.35


def test_on_disk(tmp_path):
    table = write_phantom("multimodal", 2, 32, tmp_path / "set", source="ct", target="t1")
    with table.open(newline="") as file:
        record = next(csv.DictReader(file))
    assert (record["source_modality"], record["target_modality"]) == ("ct", "t1")
    rows = read_pairs(table)
    assert rows.label_names["1"] == "ventricles"
    assert {"counterpart", "registered", "displacement", "inverse", "source_labels"} <= rows.rows[0].files.keys()
    # other modalities are other settings
    with pytest.raises(InputError, match="source"):
        write_phantom("multimodal", 2, 32, tmp_path / "set")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("surgery", {"source": "t1"}, "phantom 'surgery' has no option 'source'; it has none"),
        ("multimodal", {"target": "pet"}, "target of phantom 'multimodal' is 'pet'; expected one of t1, t2, ct"),
    ],
)
def test_options_that_a_kind_does_not_have(tmp_path, kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        write_phantom(kind, 1, 32, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()
