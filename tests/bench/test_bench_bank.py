"""The case bank's bench: its rows run, and its scan and the bank agree."""

import pytest

from whence.bench import bank

pytest.importorskip("usearch")


def test_a_row_runs(tmp_path):
    (row,) = bank.rows(True)
    cells = bank.measure(row, tmp_path / "data", tmp_path / "work")
    assert float(cells["as near"]) >= float(cells["recall"]) > 0.9
    assert float(cells["masks [MB]"]) == pytest.approx(3000 * 128 * 128 / 8 / 1e6, rel=0.1)
    assert {"exact [ms]", "approximate [ms]", "NumPy [ms]", "memory [MiB]"} <= cells.keys()
