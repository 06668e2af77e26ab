"""An evaluation into the folder of an earlier one leaves nothing of it that could be mistaken for its own."""

import csv
import json

import pytest

from whence.cli import main
from whence.errors import InputError
from whence.report.cases import find_cases
from whence.train.score import METRICS, OF_THE_TRACE


@pytest.fixture(scope="module")
def twice(trained, surgery, tmp_path_factory):
    """Evaluated on val, then on test; a note and a folder of notes stand under ``cases`` in between."""
    out = tmp_path_factory.mktemp("twice")
    given = ["evaluate", str(trained), "--data", str(surgery), "--out", str(out)]
    assert main([*given, "--split", "val"]) == 0
    before = {path.name for path in (out / "cases").iterdir()}
    (out / "cases" / "notes").mkdir()
    (out / "cases" / "notes" / "mine.txt").write_text("mine")
    (out / "cases" / "note.txt").write_text("mine")
    assert main(given) == 0
    return out, before


def ids(table, split):
    with table.open(newline="") as file:
        return [row["id"] for row in csv.DictReader(file) if row["split"] == split]


def test_stale_cases_go_and_other_files_stay(twice, surgery):
    out, before = twice
    assert before == set(ids(surgery, "val"))
    assert {path.name for path in (out / "cases").iterdir()} == {*ids(surgery, "test"), "notes", "note.txt"}
    assert json.loads((out / "summary.json").read_text())["cases"] == ids(surgery, "test")


def test_figures_of_the_trace_have_none_of_doing_nothing(twice):
    out, _ = twice
    with (out / "metrics.csv").open(newline="") as file:
        names = next(csv.reader(file))
    assert "nothing_ssim" in names
    for name in OF_THE_TRACE:
        assert name in names
        assert f"nothing_{name}" not in names
    known = {metric.name for metric in METRICS}
    assert {name.removeprefix("nothing_") for name in names} - {"id"} <= known


def test_the_report_shows_what_the_summary_lists(twice, surgery, tmp_path):
    import shutil

    out, _ = twice
    shutil.copytree(out, tmp_path / "copy")
    case = ids(surgery, "test")[0]
    shutil.copytree(out / "cases" / case, tmp_path / "copy" / "cases" / "stale")
    assert list(find_cases(tmp_path / "copy").folders) == [case]
    summary = tmp_path / "copy" / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({**content, "cases": ["stale", case, "gone"]}))
    assert list(find_cases(tmp_path / "copy").folders) == ["stale", case]
    summary.write_text(json.dumps({**content, "cases": "all"}))
    with pytest.raises(InputError, match=r"a list of ids as 'cases' in .*summary\.json; got 'all'"):
        find_cases(tmp_path / "copy")
    del content["cases"]
    summary.write_text(json.dumps(content))
    assert set(find_cases(tmp_path / "copy").folders) == {case, "stale"}
