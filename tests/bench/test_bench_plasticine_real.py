"""Plasticine's table on real images: what its data sets hold, and what a prediction costs."""

import os
from pathlib import Path

import numpy as np
import pytest

from whence.bench import plasticine_real
from whence.bench.cost import cost
from whence.cli import main
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.io import read, read_displacement, read_labels

DATA = Path(os.environ.get("WHENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_scans = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; set WHENCE_DATA to the folder of real images")


@pytest.fixture(autouse=True)
def scans(monkeypatch):
    monkeypatch.setenv("WHENCE_DATA", str(DATA))


@needs_scans
def test_the_heart_lies_in_its_windows(tmp_path):
    table = read_pairs(plasticine_real._heart(tmp_path))
    assert [row.split for row in table].count("test") == 1
    for row in table:
        labels = {side: read_labels(row.path(f"{side}_labels")).tensor for side in ("source", "target")}
        image = read(row.path("source"))
        assert image.grid.shape == labels["source"].shape[2:] == (96, 96)
        assert np.allclose(image.grid.spacing, 1.40625, atol=1e-4)
        # At end-systole the cavity is smaller.
        assert 0 < (labels["target"] == 1).sum() < (labels["source"] == 1).sum()


@needs_scans
def test_a_row_runs(tmp_path):
    (row,) = (r for r in plasticine_real.rows(True) if r.name == "end-diastole to end-systole: the source as it is")
    cells = plasticine_real.measure(row, tmp_path / "data", tmp_path / "work")
    assert cells["folded share"].startswith("0.000000")
    assert 0.3 < float(cells["Dice"].split()[0]) < 0.9


@needs_scans
def test_flair_lies_where_t1_does(tmp_path):
    table = read_pairs(plasticine_real._flair(tmp_path))
    assert {row.split for row in table} == {"train", "val", "test"}
    row = table.rows[0]
    assert float(read_displacement(row.path("displacement")).magnitude().max()) == 0
    pair = [read(row.path(name)).tensor.flatten().numpy() for name in ("source", "target")]
    assert np.corrcoef(*pair)[0, 1] > 0.3


def test_what_a_prediction_costs(tmp_path):
    table = write_phantom("domains", 16, 32, tmp_path / "data", anatomy="heart")
    options = {"steps": 1, "batch_size": 2, "threads": 1, "filters": 4, "blocks": 1, "accelerator": "cpu"}
    options |= {"discriminator_filters": 4, "discriminator_layers": 1}
    given = [f"--{name}={value}" for name, value in options.items()]
    assert main(["fit", "cyclegan", "--data", str(table), "--out", str(tmp_path / "run"), *given]) == 0
    row = next(iter(read_pairs(table, ("source",)).split("test").domain("source")))
    seconds, memory = cost(tmp_path / "run", row.path("source"), threads=1)
    assert 0 < seconds < 60
    assert 100 < memory < 10_000
