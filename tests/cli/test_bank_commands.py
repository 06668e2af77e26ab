"""whence bank: build, query, add, remove, info, by tables of pairs."""

import csv

import pytest

from whence.cli import main
from whence.data import read_pairs
from whence.data.pairs import write_pairs
from whence.data.phantom import write_phantom
from whence.io import read_labels
from whence.retrieval import Bank

pytest.importorskip("usearch")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return write_phantom("surgery", 12, 64, tmp_path_factory.mktemp("slices"))


def test_a_bank_from_a_table_to_its_answers(slices, tmp_path, capsys):
    folder, home = tmp_path / "bank", slices.parent
    assert main(["bank", "build", str(slices), "--out", str(folder), "--split", "train", "--approximate", "true"]) == 0
    table = read_pairs(slices)
    assert {case.id for case in Bank(folder)} == {row.id for row in table.split("train")}
    capsys.readouterr()
    mask, image = home / "case0011" / "source_mask.nii.gz", home / "case0011" / "source.nii.gz"
    found = tmp_path / "found.csv"
    assert main(["bank", "query", str(mask), "--bank", str(folder), "--count", "3", "--out", str(found)]) == 0
    assert "IoU" in capsys.readouterr().out
    with found.open() as file:
        rows = list(csv.DictReader(file))
    query = read_labels(mask).tensor != 0
    by_hand = {}
    for row in table.split("train"):
        other = read_labels(row.path("source_mask")).tensor != 0
        by_hand[row.id] = float((query & other).sum() / (query | other).sum())
    best = sorted(by_hand.values(), reverse=True)[:3]
    assert [float(row["iou"]) for row in rows] == pytest.approx(best, abs=1e-6)
    assert [by_hand[row["id"]] for row in rows] == pytest.approx(best)
    assert rows[0]["target"] == str(home / rows[0]["id"] / "target.nii.gz")
    for more in (["--strategy", "image", "--image", str(image)], ["--strategy", "random"], ["--approximate"]):
        assert main(["bank", "query", str(mask), "--bank", str(folder), *more]) == 0
    assert main(["bank", "add", str(slices), "--bank", str(folder), "--split", "test"]) == 0
    assert main(["bank", "remove", "case0000", "--bank", str(folder)]) == 0
    capsys.readouterr()
    assert main(["bank", "info", "--bank", str(folder)]) == 0
    assert f"cases        {len(table.split('train', 'test')) - 1}" in capsys.readouterr().out


def test_slices_of_volumes_are_cases(tmp_path):
    """Those that show enough of the tumour, each compared with the slice of the query that shows most of it."""
    table = write_phantom("surgery", 4, 40, tmp_path / "volumes", 3)
    rows = [
        {"id": row.id, "split": row.split, "patient": f"0{n}", **{c: row.path(c) for c in ("source", "source_mask")}}
        for n, row in enumerate(read_pairs(table))
    ]
    own = write_pairs(tmp_path / "volumes" / "own.csv", rows)
    folder = tmp_path / "bank"
    given = ["--plane", "axial", "--spacing", "[8,8]", "--least", "10"]
    assert main(["bank", "build", str(own), "--out", str(folder), *given]) == 0
    bank = Bank(folder)
    first = read_labels(rows[0]["source_mask"])
    areas = (first.grid.to_canonical(first.tensor) != 0)[0, 0].sum(dim=(0, 1)).tolist()
    assert [case.slice for case in bank if case.id == "case0000"] == [k for k, area in enumerate(areas) if area >= 10]
    assert {case.patient for case in bank} == {"00", "01", "02", "03"}
    found = tmp_path / "found.csv"
    query = ["bank", "query", str(rows[0]["source_mask"]), "--bank", str(folder), "--count", "1", "--out", str(found)]
    assert main(query) == 0
    with found.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], int(row["slice"]), float(row["iou"])) == ("case0000", areas.index(max(areas)), 1.0)
    assert main([*query, "--patient", "00"]) == 0
    with found.open() as file:
        assert next(csv.DictReader(file))["patient"] != "00"


def test_slips_are_answered_in_a_sentence(slices, tmp_path, capsys):
    folder, mask = tmp_path / "bank", slices.parent / "case0003" / "source_mask.nii.gz"
    assert main(["bank", "build", str(slices), "--out", str(folder)]) == 0
    brain = slices.parent / "case0003" / "source_brain.nii.gz"
    for given, reason in [
        ([], "expected what to do with a bank, one of build, add, remove, query, info; got nothing"),
        (["empty"], "got 'empty'"),
        (["info", "--bank", str(tmp_path / "none")], "expected a case bank in"),
        (["build", str(slices), "--out", str(folder), "--plane", "axial"], "is 2D and has no axial slices"),
        (["build", str(slices), "--out", str(folder), "--plane", "flat"], "unknown plane 'flat'"),
        (["build", str(slices), "--out", str(folder), "--spacing", "[2]"], "--spacing needs 2 numbers"),
        (["build", str(slices), "--out", str(folder), "--least", "0"], "expected least from 1"),
        (["add", str(slices), "--bank", str(folder)], "has a case 'case0000' already"),
        (["remove", "case9999", "--bank", str(folder)], "has no case 'case9999'"),
        (["query", str(mask), "--bank", str(folder), "--strategy", "image"], "expected --image, the query's"),
        (["query", str(mask), "--bank", str(folder), "--strategy", "mask"], "unknown strategy 'mask'"),
        (["query", str(mask.parent / "none.nii.gz"), "--bank", str(folder)], "none.nii.gz"),
        (["query", str(mask), "--bank", str(folder), "--count", "0"], "expected one case or more"),
    ]:
        capsys.readouterr()
        assert main(["bank", *given]) == 2, given
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        main(["bank", "--help"])
    assert ended.value.code == 0
    assert "usage: whence bank {build,add,remove,query,info}" in capsys.readouterr().out
    assert len(Bank(folder)) == 12
    assert main(["bank", "query", str(brain), "--bank", str(folder), "--count", "2"]) == 0
