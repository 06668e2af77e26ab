"""Templates: in the middle of shapes whoever they begin with, labels by vote, a stopped build goes on."""

import numpy as np
import pytest
import torch

from whence.data.pairs import write_pairs
from whence.errors import InputError
from whence.io import read, read_labels, write, write_labels
from whence.space import Grid, Volume
from whence.train import template as module
from whence.train.register import RegisterConfig
from whence.train.template import build_template

CONFIG = RegisterConfig(similarity="mse", affine=False)
GRID = Grid((48, 40), np.diag([2.0, 2.0, 1.0]))
RADII = (7.0, 9.0, 11.0, 13.0)


def disc(radius):
    """A soft disc on a faint background, radius in voxels."""
    y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(40.0) - 19.5, indexing="ij")
    return torch.sigmoid((radius - (x.square() + y.square()).sqrt()) / 0.7)


@pytest.fixture
def table(tmp_path):
    rows = []
    for number, radius in enumerate(RADII):
        image = disc(radius)[None, None]
        write(Volume(image * 100 * (number + 1), GRID), tmp_path / f"{number}.nii.gz")
        write_labels(Volume((image > 0.5).to(torch.uint8), GRID), tmp_path / f"{number}_labels.nii.gz")
        files = {"source": tmp_path / f"{number}.nii.gz", "source_labels": tmp_path / f"{number}_labels.nii.gz"}
        rows.append({"id": f"p{number}", "split": "train", **files})
    return write_pairs(tmp_path / "pairs.csv", rows)


def radius_of(volume, level):
    return float(((volume.tensor > level).float().sum() / np.pi).sqrt())


@pytest.mark.parametrize("begin", ["0.nii.gz", None])
def test_it_lies_in_the_middle_whoever_it_begins_with(table, tmp_path, begin):
    start = None if begin is None else tmp_path / begin
    path = build_template(table, tmp_path / "t", CONFIG, 3, "source", start)
    # The mean radius is 10 voxels; where it began, 7.
    assert abs(radius_of(read(path), 500) - 10) < 0.5
    labels = read_labels(tmp_path / "t" / module.LABELS)
    assert abs(radius_of(labels, 0.5) - 10) < 0.6
    # A mean of registered images is as sharp as they are: few voxels between dark and bright.
    between = (read(path).tensor > 150) & (read(path).tensor < 850)
    assert int(between.sum()) < 250


def test_a_stopped_build_goes_on(table, tmp_path, monkeypatch):
    calls = []
    register = module.register_table

    def counted(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return register(path, *rest)

    monkeypatch.setattr(module, "register_table", counted)
    with pytest.raises(KeyboardInterrupt):
        build_template(table, tmp_path / "t", CONFIG, 2, "source")
    path = build_template(table, tmp_path / "t", CONFIG, 2, "source")
    # The first round was done; the second was taken up.
    assert len(calls) == 3
    assert build_template(table, tmp_path / "t", CONFIG, 2, "source") == path
    assert len(calls) == 3


def test_other_options_are_refused(table, tmp_path):
    build_template(table, tmp_path / "t", CONFIG, 1, "source")
    with pytest.raises(InputError, match="other options"):
        build_template(table, tmp_path / "t", RegisterConfig(similarity="ncc", affine=False), 1, "source")
    with pytest.raises(InputError, match="no column 'target'"):
        build_template(table, tmp_path / "u", CONFIG, 1)
    with pytest.raises(InputError, match="1 round or more"):
        build_template(table, tmp_path / "u", CONFIG, 0, "source")


def test_who_is_held_out_is_not_in_it(table, tmp_path):
    text = table.read_text().splitlines()
    table.write_text("\n".join(line.replace("train", "test") if line.startswith("p3") else line for line in text))
    path = build_template(table, tmp_path / "t", CONFIG, 2, "source")
    assert abs(radius_of(read(path), 500) - 9) < 0.5
    with pytest.raises(InputError, match="other options or of another table"):
        build_template(table, tmp_path / "t", CONFIG, 2, "source", split="all")


def test_labels_are_those_of_the_round_that_is_asked_for(table, tmp_path):
    build_template(table, tmp_path / "t", CONFIG, 2, "source")
    last = read_labels(tmp_path / "t" / module.LABELS).tensor
    build_template(table, tmp_path / "t", CONFIG, 1, "source")
    first = read_labels(tmp_path / "t" / module.LABELS).tensor
    torch.testing.assert_close(first, read_labels(tmp_path / "t" / "template_labels_1.nii.gz").tensor)
    assert not torch.equal(first, last)
