"""The IMSE bench: its rows run end to end, and its figures are those of what they are named after."""

import numpy as np
import pytest

from whence.bench import imse
from whence.bench.error_maps import local_motion
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.errors import InputError
from whence.io import read


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_rows_are_many_and_named_once():
    rows = imse.rows(False)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) == 16 + 4 + 10
    assert all(set(row.published) <= {"Dice", "HD95", "squared gradient", "NMAE", "PSNR", "SSIM"} for row in rows)
    assert "mind 0.3" in imse.notes(False)
    assert {row.settings["steps"] for row in imse.rows(True)} == {10}


@pytest.mark.parametrize(
    "name", ["T1 to T2: start", "T1 to T2: MIND", "T2 to T1: IMSE (SR)", "T2 to T1, by optimisation: NCC"]
)
def test_a_row_runs(data, tmp_path, name):
    (row,) = (row for row in imse.rows(True) if row.name == name)
    cells = imse.measure(row, data, tmp_path)
    assert set(imse.SHOWN) <= set(cells)
    assert ("SSIM" in cells) == ("IMSE" in name)
    assert ("map and displacement" in cells) == ("IMSE" in name)


def test_the_real_rows_ask_for_their_images(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WHENCE_DATA", str(tmp_path))
    (row,) = (row for row in imse.rows(False) if row.name == "Real T1 to T2: start")
    with pytest.raises(InputError, match="Open MS"):
        imse.measure(row, data, tmp_path)


def test_a_judge_that_knows_the_truth_ranks_perfectly(tmp_path, monkeypatch):
    """The known local displacement, given as the map itself, is in perfect order with itself."""
    from whence.bench import error_maps as module

    table = read_pairs(write_phantom("multimodal", 2, 48, tmp_path / "heads"))
    seeds = iter(range(len(table)))

    class Known:
        class method:  # noqa: N801 - stands for an instance
            columns = ("source",)

    def known(judge, moving, fixed):
        row = table.rows[next(seeds)]
        motion = local_motion(fixed.grid, row, list(table).index(row))

        class Found:
            map = fixed.with_tensor(motion.tensor.square().sum(dim=1, keepdim=True).sqrt())

        return Found

    monkeypatch.setattr(module, "spatial_error", known)
    assert module.ranks_of_regions(Known, table) > 0.99
    motion = local_motion(read(table.rows[0].path("source")).grid, table.rows[0], 0)
    assert 0.5 < float(motion.tensor.abs().max()) < 0.1 * 48
    assert np.isfinite(motion.tensor.numpy()).all()
