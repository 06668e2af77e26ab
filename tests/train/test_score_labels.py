"""Dice and HD95 of a case: labels that are kept, lost, or have no partner."""

import math

import pytest
import torch

from whence.field import Displacement
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.score import Truth, score

GRID = Grid.regular((40, 30), (1.0, 2.0))
DIAGONAL = math.hypot(40, 60)


def labels(*squares):
    tensor = torch.zeros(1, 1, *GRID.shape, dtype=torch.int32)
    for label, x, y in squares:
        tensor[..., x : x + 4, y : y + 4] = label
    return Volume(tensor, GRID)


def figures(source, target, cavity=None, shift=0.0):
    """A trace that moves everything by ``shift`` voxels along the first axis."""
    image = Volume(torch.rand(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(0)), GRID)
    field = torch.zeros(1, 2, *GRID.shape)
    field[:, 0] = shift
    trace = Trace(image, image, Displacement(field, GRID), Displacement(-field, GRID), image, image)
    body = torch.ones(1, 1, *GRID.shape, dtype=torch.bool)
    found = score(trace, Truth(image, body, None, cavity, None, None, (source, target)))
    return found.get("dice"), found.get("hd95")


def test_labels_in_their_place():
    both = labels((1, 5, 5), (2, 20, 10))
    assert figures(both, both) == (1.0, 0.0)


def test_a_label_beside_its_place():
    """The first square lies 2 mm off, half upon its partner."""
    assert figures(labels((1, 20, 5), (2, 5, 20)), labels((1, 18, 5), (2, 5, 20))) == pytest.approx((0.75, 1.0))


def test_a_lost_label_counts_the_diagonal():
    """By a shift of 4 mm the first square lies beside its place, and the second has left the image."""
    both = labels((1, 20, 5), (2, 0, 20))
    dice, hd95 = figures(both, both, shift=4.0)
    assert dice == 0
    assert hd95 == pytest.approx((4 + DIAGONAL) / 2)


def test_a_label_of_one_truth_alone_is_left_out():
    both = labels((1, 5, 5))
    assert figures(labels((1, 5, 5), (2, 20, 10)), both) == (1.0, 0.0)
    assert figures(both, labels((1, 5, 5), (3, 20, 10))) == (1.0, 0.0)
    assert figures(labels((2, 5, 5)), labels((3, 5, 5))) == (None, None)


def test_what_was_cut_out_whole_has_no_partner():
    both = labels((1, 5, 5), (2, 20, 10))
    cavity = both.tensor == 2
    assert figures(both, both, cavity) == (1.0, 0.0)
