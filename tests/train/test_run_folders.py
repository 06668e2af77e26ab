"""Folders that hold one thing alone: a run, a trace, a bank; traces written over traces."""

import numpy as np
import pytest
import torch

from whence.errors import InputError
from whence.field import Displacement
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.run import check_alone


def trace(**extras):
    grid = Grid((12, 10), np.eye(3))
    image = Volume(torch.rand(1, 1, 12, 10, generator=torch.Generator().manual_seed(0)), grid)
    still = Displacement.identity(grid)
    return Trace.build(image, image, still, still, method="test", extras=dict.fromkeys(extras, image))


def test_a_trace_takes_the_place_of_an_earlier_one(tmp_path):
    trace(deviation=1, mean=1).save(tmp_path / "t")
    (tmp_path / "t" / "notes.txt").write_text("mine")
    trace(mean=1).save(tmp_path / "t")
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert "extra_mean.nii.gz" in names
    assert "notes.txt" in names
    assert "extra_deviation.nii.gz" not in names
    assert set(Trace.load(tmp_path / "t").extras) == {"mean"}


def test_a_file_that_is_no_traces_is_not_overwritten(tmp_path):
    (tmp_path / "prediction.nii.gz").write_text("mine")
    with pytest.raises(InputError, match=r"prediction\.nii\.gz is no file of a trace"):
        trace().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prediction.nii.gz"]
    assert (tmp_path / "prediction.nii.gz").read_text() == "mine"


@pytest.mark.parametrize(("sign", "words"), [("trace.json", "a trace"), ("bank.json", "a case bank")])
def test_a_folder_holds_one_thing(tmp_path, sign, words):
    (tmp_path / sign).write_text("{}")
    check_alone(tmp_path, sign)
    with pytest.raises(InputError, match=f"holds {words}"):
        check_alone(tmp_path, "config.yaml")
