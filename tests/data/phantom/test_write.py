"""A phantom on disk: every column there, readable, resumable, the same bytes whoever writes it."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from whence import io
from whence.data.phantom import PHANTOMS, phantom, write_phantom
from whence.data.phantom.surgery import FILES, make_case
from whence.data.phantom.write import splits
from whence.errors import InputError
from whence.field import warp

COLUMNS = [
    "id",
    "source",
    "target",
    "split",
    "source_mask",
    "target_mask",
    "source_labels",
    "target_labels",
    "source_brain",
    "target_brain",
    "source_points",
    "target_points",
    "displacement",
    "inverse",
]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    write_phantom("surgery", 3, 48, out, seed=4)
    return out


def test_the_table_names_files_that_hold_the_case(written):
    table = rows(written / "pairs.csv")
    assert [*table[0]][:14] == COLUMNS[:14]
    assert [r["id"] for r in table] == ["case0000", "case0001", "case0002"]
    for index, row in enumerate(table):
        case = make_case(4, index, 48, 2)
        for column in ("source", "target"):
            volume = io.read(written / row[column])
            assert torch.equal(volume.tensor, getattr(case, column).tensor)
            assert volume.grid.same_as(case.source.grid)
        for column in ("source_labels", "target_labels", "source_mask", "target_mask", "source_brain", "target_brain"):
            assert np.array_equal(io.read_labels(written / row[column]).numpy(), getattr(case, column).numpy())
        for column in ("displacement", "inverse"):
            field = io.read_displacement(written / row[column])
            assert float((field.tensor - getattr(case, column).tensor).abs().max()) < 1e-5
        for column in ("source_points", "target_points"):
            points = io.read_points(written / row[column])
            assert np.abs(points.coordinates - getattr(case, column)).max() < 1e-3
        assert float(row["extent"]) == pytest.approx(case.extent, abs=1e-3)


def test_the_written_field_carries_the_written_points_and_labels(written):
    row = rows(written / "pairs.csv")[1]
    field = io.read_displacement(written / row["displacement"])
    source, target = (io.read_points(written / row[f"{date}_points"]).coordinates for date in ("source", "target"))
    assert np.abs(field(target) - source).max() < 1e-3
    arrived = warp(io.read_labels(written / row["source_labels"]), field, "nearest").numpy()
    truth = io.read_labels(written / row["target_labels"]).numpy()
    known = (truth > 0) & (truth != 5)
    assert (arrived[known] == truth[known]).mean() > 0.9


def test_several_processes_write_the_same_bytes(written, tmp_path):
    seen = []
    write_phantom("surgery", 3, 48, tmp_path / "two", seed=4, jobs=2, progress=lambda *step: seen.append(step))
    assert hashes(tmp_path / "two") == hashes(written)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_interrupted_run_goes_on(tmp_path, written):
    out = tmp_path / "stopped"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom("surgery", 3, 48, out, seed=4, progress=stop)
    assert not (out / "pairs.csv").exists()
    (out / "case0001" / FILES["inverse"]).unlink()
    kept = (out / "case0000" / "source.nii.gz").stat().st_mtime_ns
    write_phantom("surgery", 3, 48, out, seed=4)
    assert (out / "case0000" / "source.nii.gz").stat().st_mtime_ns == kept
    assert hashes(out) == hashes(written)


@pytest.mark.parametrize(
    ("change", "named"), [({"seed": 2}, "seed: 1 -> 2"), ({"n": 1}, "n: 2 -> 1"), ({"size": 40}, "size: 32 -> 40")]
)
def test_a_data_set_of_other_settings_stays(tmp_path, change, named):
    out = tmp_path / "set"
    settings = {"kind": "surgery", "n": 2, "size": 32, "out": out, "seed": 1}
    write_phantom(**settings)
    before = hashes(out)
    with pytest.raises(InputError, match=rf"set holds a data set of other settings \({named}\); choose another --out"):
        write_phantom(**settings | change)
    assert hashes(out) == before


def test_three_dimensions(tmp_path):
    write_phantom("surgery", 1, 32, tmp_path, dims=3)
    row = rows(tmp_path / "pairs.csv")[0]
    assert io.read(tmp_path / row["source"]).grid.shape == (32, 32, 32)
    assert io.read_displacement(tmp_path / row["displacement"]).tensor.shape == (1, 3, 32, 32, 32)
    assert io.read_points(tmp_path / row["source_points"]).coordinates.shape == (30, 3)


@pytest.mark.parametrize(
    ("n", "expected"), [(400, (320, 30, 50)), (16, (13, 1, 2)), (8, (6, 1, 1)), (3, (1, 1, 1)), (1, (1, 0, 0))]
)
def test_splits(n, expected):
    split = splits(n)
    assert tuple(split.count(s) for s in ("train", "val", "test")) == expected
    assert split == sorted(split, key=["train", "val", "test"].index)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "surgry"}, "unknown phantom 'surgry'; expected one of .*surgery"),
        ({"n": 0}, "n of at least 1; got 0"),
        ({"size": 8}, "size of at least 32; got 8"),
        ({"dims": 4}, "2 or 3 dimensions; got 4"),
        ({"seed": -1}, "seed of at least 0; got -1"),
        ({"jobs": 0}, "jobs of at least 1; got 0"),
    ],
)
def test_settings_that_make_no_sense_write_nothing(tmp_path, change, sentence):
    settings = {"kind": "surgery", "n": 1, "size": 32, "out": tmp_path / "none"} | change
    with pytest.raises(InputError, match=sentence):
        write_phantom(**settings)
    assert not (tmp_path / "none").exists()


def test_a_table_of_somebody_else_stays(tmp_path):
    (tmp_path / "pairs.csv").write_text("id,source,target\n")
    with pytest.raises(InputError, match=r"pairs\.csv is there already"):
        write_phantom("surgery", 1, 32, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]
    assert (tmp_path / "pairs.csv").read_text() == "id,source,target\n"


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        write_phantom("surgery", 1, 32, tmp_path / "file")


def test_the_registry_imports_what_it_names():
    for kind in PHANTOMS:
        module = phantom(kind)
        assert callable(module.make_case)
        assert {"source", "target"} & set(module.FILES)
