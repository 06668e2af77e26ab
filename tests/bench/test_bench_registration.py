"""The table of registration: every tool a row, peers that are absent say so, what is measured is right."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.bench import registration
from whence.bench.rows import Row
from whence.errors import InputError
from whence.space import Grid, Volume


@pytest.fixture
def scans(monkeypatch):
    """Two balls of two labels, one shifted by two voxels, in the place of the scans."""

    axes = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(radius.shape), 1.2)
    ball = (radius < 0.65) * np.clip(1 + 0.3 * texture / texture.std(), 0.1, 2)
    regions = (radius < 0.6).astype(np.int32) + (radius < 0.35)

    def scan(name, spacing):
        image, labels = (np.roll(array, 2 if name == "moving" else 0, axis=0) for array in (ball, regions))
        grid = Grid.regular(image.shape, 2.0)
        found = Volume(torch.from_numpy(labels)[None, None], grid)
        return Volume(torch.from_numpy(image.astype(np.float32))[None, None], grid), found, found

    monkeypatch.setattr(registration, "_scan", scan)


def row(tool):
    return Row(tool, {"fixed": "fixed", "moving": "moving", "tool": tool, "spacing": 0.0})


def test_our_row(scans, tmp_path):
    cells = registration.measure(row("whence fast"), tmp_path, tmp_path / "work")
    assert cells["region Dice"] > 0.9
    assert cells["folded [%]"] == 0
    # A tenth of a voxel.
    assert cells["inverse [mm]"] < 0.2
    assert cells["seconds"] > 0


def test_a_peer_that_is_absent_says_so(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(registration, "find_spec", lambda name: None)
    cells = registration.measure(row("ANTs SyN"), tmp_path, tmp_path)
    assert cells["note"] == "not installed: pip install antspyx"
    assert cells["region Dice"] == ""


@pytest.mark.slow
def test_ants_is_judged_as_we_are(scans, tmp_path):
    pytest.importorskip("ants")
    cells = registration.measure(row("ANTs SyN"), tmp_path, tmp_path / "work")
    # A composite read in the wrong frame would carry the ball out of the image.
    assert cells["region Dice"] > 0.85
    assert cells["inverse [mm]"] < 0.5


def test_dice_by_hand():
    grid = Grid.regular((1, 6))
    a, b, source = (
        Volume(torch.tensor([[[values]]]), grid)
        for values in ([0, 1, 1, 2, 2, 3], [0, 1, 2, 2, 2, 0], [1, 2, 2, 3, 0, 0])
    )
    # 1: 2*1/(2+1), 2: 2*2/(2+3); 3 is not in the truth.
    assert registration._dice(a, b, source) == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-4)


def test_rows_and_the_folder(monkeypatch, tmp_path):
    slow = [row for row in registration.rows(False) if row.settings["tool"] == registration.SLOW]
    assert len(slow) == len(registration.PAIRS) - len(registration.SAME_PERSON) >= 6
    assert len(registration.rows(False)) == len(registration.PAIRS) * (len(registration.TOOLS) - 1) + len(slow)
    assert {r.settings["spacing"] for r in registration.rows(True)} == {4.0}
    monkeypatch.setenv("WHENCE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="OASIS"):
        registration.folder()


def test_the_plot(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(
        [
            {"pair": "1000 to 1001", "tool": "whence fast", "region Dice": 0.6, "tissue Dice": 0.8, "seconds": 8.0},
            {"pair": "1000 to 1001", "tool": "ANTs SyN", "region Dice": "", "tissue Dice": "", "seconds": ""},
        ]
    )
    registration.draw(frame, tmp_path)
    assert (tmp_path / "registration.png").stat().st_size > 1000


def test_the_summary_is_over_pairs_of_two_people():
    import pandas as pd

    pairs = ["1000 to 1001", "1006 to 1007", "1023 to 1003"]
    frame = pd.DataFrame(
        [
            {"pair": pair, "tool": "whence fast", "region Dice": dice, "tissue Dice": 0.8, "seconds": 8.0}
            for pair, dice in zip(pairs, (0.6, 0.7, 0.9), strict=True)
        ]
    )
    found = registration.summary(frame).set_index("tool").loc["whence fast"]
    assert found["pairs"] == 2
    assert found["region Dice"] == "0.650 ± 0.071"
    assert found["seconds"] == "8.0 ± 0.0"
    # Settings were chosen on the first pair.
    assert found["region Dice, pairs no setting was chosen on"] == "0.700"
