"""Conditions of a pairs.csv: a column holds numbers or text, never both."""

import pytest

from whence.data import read_pairs, write_pairs


def conditions(folder, name, cells):
    (folder / "a.nii").write_text("x")
    lines = [f"{i},a.nii,a.nii,train,{cell}" for i, cell in enumerate(cells)]
    (folder / "pairs.csv").write_text("\n".join([f"id,source,target,split,{name}", *lines]) + "\n")
    return [row.conditions.get(name) for row in read_pairs(folder / "pairs.csv")]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("65.5", "0", "-3", "+2", "1e3", ".5", "7.", " 8 "), [65.5, 0.0, -3.0, 2.0, 1000.0, 0.5, 7.0, 8.0]),
        (("0.25", "-0.5", "0"), [0.25, -0.5, 0.0]),
        (("65", "", " "), [65.0, None, None]),
        (("05", "11"), ["05", "11"]),
        (("-05", "1"), ["-05", "1"]),
        (("00", "1"), ["00", "1"]),
        (("1", "nan"), ["1", "nan"]),
        (("inf", "2"), ["inf", "2"]),
        (("1e999", "2"), ["1e999", "2"]),
        (("1_000", "2"), ["1_000", "2"]),
        (("0x10", "2"), ["0x10", "2"]),
        (("61", "about 60"), ["61", "about 60"]),
        (("NA", "None"), ["NA", "None"]),
        (("", ""), [None, None]),
    ],
)
def test_a_column_is_of_one_kind(cells, expected, tmp_path):
    found = conditions(tmp_path, "age", cells)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_patients_are_names(tmp_path):
    assert conditions(tmp_path, "patient", ("1", "2")) == ["1", "2"]
    assert conditions(tmp_path, "patient", ("05", "1e3")) == ["05", "1e3"]


def test_the_whole_table_decides_for_each_split(tmp_path):
    (tmp_path / "a.nii").write_text("x")
    rows = [{"id": "1", "source": "a.nii", "target": "a.nii", "split": "train", "site": "3"}]
    rows.append({**rows[0], "id": "2", "split": "test", "site": "03"})
    table = read_pairs(write_pairs(tmp_path / "pairs.csv", rows))
    assert table.split("train").rows[0].conditions == {"site": "3"}
