"""The bench of retrieval-based generation: its rows run end to end, its plans are halves of tumours."""

import pytest

from whence.bench import postop
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.io import read_labels

pytest.importorskip("diffusers")
pytest.importorskip("usearch")
JUDGED = {"SSIM", "PSNR [dB]", "cavity Dice", "displacement error within 15 mm [mm]", "novelty AUC"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("the true image", JUDGED),
        ("the source as it is", JUDGED),
        ("the composite, no model", JUDGED),
        ("DDPM, before and after joined", JUDGED),
        ("an instruction alone (InstructPix2Pix)", JUDGED),
        ("ours", JUDGED),
        ("ours, drawn by the autoencoder (no carrier)", JUDGED),
        ("plans learnt, told to cut half of the tumour", {"Dice with the plan"}),
        ("the model of ours, shown a random case", JUDGED),
        ("the model of ours, p_comp alone left out", JUDGED),
        ("ours, a volume's slices each by itself", {"slice to slice"}),
        ("ours, a volume's slices together", {"slice to slice"}),
    ],
)
def test_a_row_runs(data, tmp_path, name, wanted):
    (row,) = (row for row in postop.rows(True) if row.name == name)
    cells = postop.measure(row, data, tmp_path)
    assert wanted <= set(cells) <= wanted | {"MS-SSIM", "LPIPS", "SSIM, less ours", "cavity Dice, less ours"}


def test_rows_that_ask_one_model_share_its_run(data):
    runs = {folder.name for folder in (data / "40_48").iterdir() if (folder / "config.yaml").is_file()}
    # The instruction alone, ours of six rows, ours without a carrier, and with plans.
    assert len([name for name in runs if name.startswith("postop")]) == 4


def test_a_plan_is_half_of_the_tumour_and_the_same_each_time(tmp_path):
    pair = read_pairs(write_phantom("surgery", 12, 48, tmp_path)).rows[0]
    half, again = postop._half(pair).tensor, postop._half(pair).tensor
    mask = read_labels(pair.path("source_mask")).tensor > 0
    assert bool((half == again).all())
    assert not bool((half > 0)[~mask].any())
    assert 0.3 < float(half.sum() / mask.sum()) < 0.55
