"""Finished rows of a bench: when they stand, when they are measured again, and where the smoke version goes."""

import importlib.util
import shutil
from pathlib import Path

import pytest

import whence
from whence.bench import TABLES, find_table, rows
from whence.bench.code import fingerprint
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


def test_what_a_row_is_known_by(tmp_path):
    root = tmp_path / "whence"
    shutil.copytree(Path(whence.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__", "assets", "tests"))
    core, training = root / "bench" / "core.py", root / "bench" / "training.py"

    def changed(inside, table, more="\nMORE = 1\n"):
        path, known = root / inside, fingerprint(table, root)
        before = path.read_bytes()
        path.write_bytes(before + more.encode())
        try:
            return fingerprint(table, root) != known
        finally:
            path.write_bytes(before)

    assert fingerprint(core, root) == fingerprint(core, root) != fingerprint(training, root)
    # Imported, named in a registry's string, and at the end of a name that is put together.
    assert changed("losses/similarity.py", core)
    assert changed("models/baselines/pix2pix.py", training)
    assert changed("kernels/cpu/exp_loops.py", core)
    assert changed("bench/core.py", core)
    assert changed("recipes/tracetrans-cpu.yaml", training, "\n# more\n")
    assert not changed("recipes/tracetrans-cpu.yaml", core, "\n# more\n")
    assert not changed("models/tracetrans.py", core)
    for inside in ("cli.py", "report/page.py", "bench/tracetrans.py", "bench/rows.py", "__init__.py"):
        assert not changed(inside, training)
    assert not changed("losses/similarity.py", core, "\n# A remark.\n")
    # The same code under another name is other code.
    known = fingerprint(core, root)
    (root / "kernels" / "cpu" / "exp_loops.py").rename(root / "kernels" / "cpu" / "loops_of_exp.py")
    assert fingerprint(core, root) != known


def test_rows_of_other_threads_and_kernels_are_measured_again(table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert "made`, commit" in rows.run_table("made", out).read_text()
    monkeypatch.setenv("WHENCE_KERNELS", "reference")
    rows.run_table("made", out)
    assert table.MEASURED == ["a", "b", "a", "b"]
    monkeypatch.delenv("WHENCE_KERNELS")
    rows.run_table("made", out)
    assert len(table.MEASURED) == 4
    place = rows._place()
    monkeypatch.setattr(rows, "_place", lambda: {**place, "threads": 64})
    assert "64 threads" in rows.run_table("made", out).read_text()
    assert len(table.MEASURED) == 6


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("quick", [True, False])
def test_every_table_offers_what_a_table_has(name, quick):
    module = find_table(name)
    names = [row.name for row in module.rows(quick)]
    assert len(set(names)) == len(names) > 0
    assert module.title(quick) != module.title(not quick)
    assert module.notes(quick).endswith(".")
