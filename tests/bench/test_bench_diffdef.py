"""The bench of conditional atlases: its rows run, and its judge knows the true mean."""

import pytest

from whence.bench import diffdef
from whence.data import read_pairs

COLUMNS = {
    *("volume error [%]", "rank", "field error [mm]", "Dice", "folded share", "smoothness", "centrality [mm]"),
    "an atlas [s]",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def cells_of(name, data, tmp_path):
    (row,) = (row for row in diffdef.rows(True) if row.name == name)
    return diffdef.measure(row, data, tmp_path)


def first(cell):
    return float(cell.split()[0].rstrip(","))


@pytest.mark.parametrize(
    "name",
    [
        "2D: conditional templates (VoxelMorph)",
        "2D: latent diffusion of intensities",
        "2D: Diff-Def",
        "2D: Diff-Def, a displacement",
        "2D: Diff-Def without morphology preservation",
    ],
)
def test_a_row_runs(data, tmp_path, name):
    assert set(cells_of(name, data, tmp_path)) - {"LPIPS"} == COLUMNS


def test_the_true_mean_is_judged_true(data, tmp_path):
    true, still = (cells_of(f"2D: the {name}", data, tmp_path) for name in ("true mean", "general atlas"))
    assert true["volume error [%]"] == "0.0, at most 0.0"
    assert first(true["field error [mm]"]) == 0
    assert float(true["rank"]) == 1
    assert first(true["Dice"]) > first(still["Dice"])
    assert first(still["volume error [%]"]) > 10
    assert float(still["rank"]) == 0


def test_the_true_means_picture_is_found_near_it(data, tmp_path):
    """What has no field is judged by one that is found: as well as one can be."""
    found, still = (
        cells_of(f"2D: {n}", data, tmp_path) for n in ("the true mean's image, its field found", "the general atlas")
    )
    for name in ("volume error [%]", "field error [mm]"):
        assert first(found[name]) < first(still[name])


def test_averaging_comes_nearer_than_the_general_atlas(data, tmp_path):
    average, still = (
        cells_of(f"2D: {name}", data, tmp_path) for name in ("register and average, 15 neighbours", "the general atlas")
    )
    assert float(average["rank"]) > 0.5
    assert first(average["volume error [%]"]) < first(still["volume error [%]"])


def test_nobody_of_the_band_is_learnt_from(data, tmp_path):
    cells = cells_of("2D: Diff-Def, nobody of 58 to 70 seen", data, tmp_path)
    assert set(cells) - {"LPIPS"} == COLUMNS | {"unseen: volume error [%]"}
    rows = read_pairs(next(data.rglob("without_58_70.csv")))
    ages = [row.conditions.get("age", 60.0) for row in rows.split("train")]
    assert ages
    assert not any(58 <= age <= 70 for age in ages)


def test_an_atlas_may_be_asked_for_by_the_volume_too(data, tmp_path):
    cells = cells_of("2D: Diff-Def, told the ventricles' volume as well", data, tmp_path)
    assert set(cells) - {"LPIPS"} == COLUMNS | {"age and volume: volume error [%]"}
