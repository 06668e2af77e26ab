"""Attributes by name: what rows know of them, vectors, nearness, tokens."""

import math

import pytest
import torch

from whence.data.neighbours import NeighbourDataset
from whence.errors import InputError
from whence.models.attributes import Attributes
from whence.nets.tokens import AttributeTokens

ROWS = [{"age": 20.0, "sex": "f"}, {"age": 40.0, "sex": "m"}, {"age": 60.0}, {"sex": "f"}]


@pytest.fixture
def known():
    return Attributes.of(("age", "sex"), ROWS)


def test_vectors_of_numbers_words_and_what_is_unknown(known):
    assert known.kinds == (0, 2)
    # Mean 40, deviation 20.
    assert known.vector({"age": "60", "sex": "m", "height": 1}).tolist() == [1.0, 1.0]
    assert [math.isnan(v) for v in known.vector({"sex": "f"})] == [True, False]
    assert Attributes.from_dict(known.to_dict()) == known


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"age": "old"}, "expected a number"), ({"age": "nan"}, "finite"), ({"sex": "x"}, "expected one of f, m")],
)
def test_values_that_make_no_sense_are_refused(known, values, reason):
    with pytest.raises(InputError, match=reason):
        known.vector(values)


def test_words_on_the_command_line(known):
    assert known.parsed(["age=65"]) == {"age": "65"}
    for word, reason in (("age", "as age=VALUE"), ("height=3", "nothing of 'height'"), ("age=x", "a number")):
        with pytest.raises(InputError, match=reason):
            known.parsed([word])


def test_a_column_that_says_nothing_is_refused():
    with pytest.raises(InputError, match="no row to train on has 'height'"):
        Attributes.of(("height",), ROWS)


def test_nearness_is_a_gaussian_over_what_is_asked_for(known):
    people = torch.stack([known.vector(row) for row in ROWS])
    near = known.nearness(known.vector({"age": 40}), people, 0.5)
    # Deviations -1, 0, 1, unknown: exp(-2) at a distance of two widths.
    torch.testing.assert_close(near.float(), torch.tensor([math.exp(-2), 1.0, math.exp(-2), 0.0]))
    both = known.nearness(known.vector({"age": 40, "sex": "f"}), people, 0.5)
    assert both.tolist() == [pytest.approx(math.exp(-2)), 0.0, 0.0, 0.0]
    assert known.nearness(known.vector({}), people, 0.5).tolist() == [1.0] * 4


def test_tokens_tell_values_and_the_unknown_apart(known):
    torch.manual_seed(0)
    tokens = AttributeTokens(known.kinds, 16)
    rows = torch.stack([known.vector(row) for row in ({"age": 40, "sex": "f"}, {"age": 50, "sex": "m"}, {})])
    found = tokens(rows)
    assert found.shape == (3, 2, 16)
    assert torch.equal(found[2], tokens.unknown)
    assert not torch.allclose(found[0], found[1])
    # An unknown value passes no gradient but that of its own vector.
    found[2].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in tokens.parts.parameters())


class _People:
    """Ten people whose images say who they are."""

    frame = None

    def __init__(self, ages, levels=None):
        self.slices = levels or [None] * len(ages)
        self.samples = [{"conditions": torch.tensor([a]), "target": torch.full((1, 4, 4), float(n))} for n, a in ages]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_neighbours_are_near_and_the_same_at_each_call():
    known = Attributes(("age",), {"age": (0.0, 1.0)}, {})
    people = _People([(n, n / 10) for n in range(50)])

    def nearness(asked, others):
        return known.nearness(asked, others, 0.2)

    data = NeighbourDataset(people, people, 5, nearness, dropped=0.0)
    sample, again = data[30], data[30]
    assert sample["near_target"].shape == (5, 4, 4)
    assert torch.equal(sample["near_target"], again["near_target"])
    # Neighbours of the thirtieth, in tenths: within four widths, others in the next lap.
    who = sample["near_target"][:, 0, 0]
    assert torch.equal(sample["near_index"], who.long())
    assert float((who - 30).abs().max()) <= 8
    # More than there are near: nobody far stands in for them.
    many = NeighbourDataset(people, people, 30, nearness, dropped=0.0)[48]["near_target"][:, 0, 0]
    assert float(many.min()) >= 40
    assert not torch.equal(data[30 + 50]["near_target"], sample["near_target"])
    drawn = torch.cat([data[30 + 50 * lap]["near_target"][:, 0, 0] for lap in range(60)])
    assert abs(float(drawn.mean()) - 30) < 0.6
    assert 1.5 < float(drawn.std()) < 2.5


def test_a_dropped_condition_is_dropped_for_the_neighbours_too():
    known = Attributes(("age",), {"age": (0.0, 1.0)}, {})
    people = _People([(n, n / 10) for n in range(50)])
    data = NeighbourDataset(people, people, 20, lambda a, o: known.nearness(a, o, 0.2), dropped=1.0)
    sample = data[0]
    assert bool(torch.isnan(sample["conditions"]).all())
    assert float(sample["near_target"].max()) > 20


def test_slices_of_several_levels_are_refused():
    known = Attributes(("age",), {"age": (0.0, 1.0)}, {})
    people = _People([(n, 0.0) for n in range(50)], [n // 10 for n in range(50)])
    with pytest.raises(InputError, match="slices of 5 levels of volumes, expected whole volumes"):
        NeighbourDataset(people, people, 4, lambda a, o: known.nearness(a, o, 0.2), dropped=0.0)
    same = _People([(n, 0.0) for n in range(50)], [3] * 50)
    assert (
        len(NeighbourDataset(same, same, 4, lambda a, o: known.nearness(a, o, 0.2), dropped=0.0)[0]["near_index"]) == 4
    )


def test_numbers_that_nobody_had_are_said():
    known = Attributes(("age", "sex"), {"age": (50.0, 10.0)}, {"sex": ("F", "M")})
    assert known.beyond({"age": "74", "sex": "F"}) == []
    assert known.beyond({}) == []
    (said,) = known.beyond({"age": "20"})
    assert "age=20 lies 3.0 deviations from the mean" in said
    seen = Attributes.of(("age",), [{"age": 18.0}, {"age": 40.0}, {"age": 90.0}])
    assert seen.beyond({"age": "90"}) == []
    for age in ("0", "90.5"):
        (said,) = Attributes.from_dict(seen.to_dict()).beyond({"age": age})
        assert f"age={age} lies outside of those learnt from (18 to 90)" in said


def test_a_stray_word_among_numbers_is_no_category():
    rows = [{"age": 20.0 + n} for n in range(9)]
    with pytest.raises(InputError, match="'age' is 'old' in a row and a number in 9 of 10"):
        Attributes.of(("age",), [*({"age": str(row["age"])} for row in rows), {"age": "old"}])
    assert Attributes.of(("sex",), [{"sex": "F"}, {"sex": "M"}]).kinds == (2,)


def test_a_condition_is_asked_for_once():
    known = Attributes(("age",), {"age": (50.0, 10.0)}, {})
    with pytest.raises(InputError, match="asked for twice, as 65 and 70"):
        known.parsed(["age=65", "age=70"])
