"""Finished rows of a bench: when they stand, when they are measured again, and where the smoke version goes."""

import importlib.util
import shutil
from pathlib import Path

import pytest

import whence
from whence.bench import TABLES, find_table, rows
from whence.errors import InputError

MODULE = """
from whence.bench.rows import Row

MEASURED = []


def title(quick):
    return "Small" if quick else "Large"


def notes(quick):
    return "Means nothing." if quick else "Means much."


def rows(quick):
    return [Row("a", {"steps": 1 if quick else 2}), Row("b", {"steps": 3}, {"x": 0.5})]


def measure(row, data, work):
    MEASURED.append(row.name)
    return {"x": row.settings["steps"]}
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table's module of two rows, in a file of its own."""
    path = tmp_path / "made_table.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("made_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(rows, "find_table", lambda name: module)
    return module


def test_rows_resume_and_one_can_be_run_again(table, tmp_path):
    out = tmp_path / "out"
    text = rows.run_table("made", out).read_text()
    assert text.startswith("### Large\n")
    assert "| a | 2 |  |" in text
    assert "| b | 3 | 0.5 |" in text
    assert "`whence bench made`" in text
    assert text.rstrip().endswith("Means much.")
    rows.run_table("made", out)
    assert table.MEASURED == ["a", "b"]
    rows.run_table("made", out, only=["b"])
    assert table.MEASURED == ["a", "b", "b"]
    with pytest.raises(InputError, match="no row 'c'; it has a, b"):
        rows.run_table("made", out, only=["c"])


def test_rows_may_be_measured_one_by_one(table, tmp_path):
    out = tmp_path / "out"
    text = rows.run_table("made", out, only=["b"]).read_text()
    assert table.MEASURED == ["b"]
    assert "| b | 3 | 0.5 |" in text
    assert "| a |" not in text
    text = rows.run_table("made", out, only=["a"]).read_text()
    assert table.MEASURED == ["b", "a"]
    assert text.index("| a |") < text.index("| b |")


def test_the_smoke_version_leaves_the_table_alone(table, tmp_path):
    out = tmp_path / "out"
    full = rows.run_table("made", out).read_bytes(), (out / "table.csv").read_bytes()
    quick = rows.run_table("made", out, quick=True)
    assert quick == out / "quick" / "table.md"
    assert quick.read_text().startswith("### Small\n")
    assert "--quick" in quick.read_text()
    assert quick.read_text().rstrip().endswith("Means nothing.")
    assert ((out / "table.md").read_bytes(), (out / "table.csv").read_bytes()) == full


def test_what_a_row_is_known_by(table, tmp_path):
    root = tmp_path / "whence"
    shutil.copytree(Path(whence.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__", "assets", "tests"))
    known = rows._fingerprint(table, root)
    assert rows._fingerprint(table, root) == known

    def changed(path):
        before = path.read_bytes()
        path.write_bytes(before + b"\n# more\n")
        try:
            return rows._fingerprint(table, root) != known
        finally:
            path.write_bytes(before)

    assert changed(next((root / "recipes").glob("*.yaml")))
    assert changed(root / "metrics" / "image.py")
    assert changed(Path(table.__file__))
    assert not changed(root / "cli.py")
    assert not changed(root / "report" / "page.py")
    assert not changed(root / "bench" / "tracetrans.py")
    # The same bytes under another name are other code.
    (root / "metrics" / "image.py").rename(root / "metrics" / "images.py")
    assert rows._fingerprint(table, root) != known


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("quick", [True, False])
def test_every_table_offers_what_a_table_has(name, quick):
    module = find_table(name)
    names = [row.name for row in module.rows(quick)]
    assert len(set(names)) == len(names) > 0
    assert module.title(quick) != module.title(not quick)
    assert module.notes(quick).endswith(".")
