"""Images of two domains in one table: who learns from them, from what, and what is then evaluated."""

import json
from dataclasses import replace

import pytest
import torch

from whence.cli import main
from whence.data import PairDataset, read_pairs
from whence.data.phantom import write_phantom
from whence.data.unpaired import UnpairedDataset
from whence.errors import InputError
from whence.field import resample
from whence.io import read, write
from whence.models import find_method
from whence.space import Grid, Volume
from whence.train.samples import frame_of, samples_of, training_table
from whence.train.settings import TrainConfig

TINY = {
    "filters": 4,
    "blocks": 1,
    "discriminator_filters": 4,
    "discriminator_layers": 1,
    "steps": 3,
    "batch_size": 2,
    "threads": 1,
    "accelerator": "cpu",
}
OPTIONS = [f"--{name}={value}" for name, value in TINY.items()]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_phantom("domains", 24, 32, tmp_path_factory.mktemp("domains"), anatomy="heart")


def test_an_unpaired_method_takes_all_and_others_the_pairs(table):
    cyclegan, pix2pix = find_method("cyclegan"), find_method("pix2pix")
    rows = training_table(table, cyclegan)
    assert len(rows) == 24
    with pytest.raises(InputError, match=r"pix2pix learns from rows with source and target; .* no row to train on"):
        training_table(table, pix2pix)
    pairs = training_table(table.parent / "paired.csv", pix2pix)
    assert {row.conditions["domain"] for row in pairs} == {"source"}
    assert len(pairs) == 12
    frame = frame_of(rows.split("train"), TrainConfig())
    assert isinstance(samples_of(rows.split("train"), frame, cyclegan), UnpairedDataset)
    # Where every row is a pair they are taken as such.
    paired = training_table(table.parent / "paired.csv", cyclegan)
    assert isinstance(samples_of(paired.split("train"), frame, cyclegan), PairDataset)


def test_the_frame_holds_the_largest_image_of_either_domain(table, tmp_path):
    rows = training_table(table, find_method("cyclegan")).split("train")
    row = next(iter(rows.domain("target")))
    image = read(row.path("source"))
    wide = image.grid.resampled(tuple(image.grid.spacing / 2))
    # As many voxels as at half the spacing, at the spacing itself: twice the field of view.
    write(
        Volume(resample(image, wide).tensor, Grid.regular(wide.shape, tuple(image.grid.spacing))), tmp_path / "wide.nii"
    )
    files = {**row.files, "source": tmp_path / "wide.nii"}
    changed = replace(rows, rows=tuple(replace(r, files=files) if r is row else r for r in rows))
    assert frame_of(rows, TrainConfig()).shape == (32, 32)
    assert frame_of(changed, TrainConfig()).shape == (64, 64)
    assert frame_of(changed, TrainConfig(size=(48, 48))).shape == (48, 48)


def test_partners_change_from_lap_to_lap_and_repeat_for_a_seed(table):
    cyclegan = find_method("cyclegan")
    rows = training_table(table, cyclegan).split("train")
    frame = frame_of(rows, TrainConfig())
    samples, again, other = (samples_of(rows, frame, cyclegan, seed) for seed in (0, 0, 1))
    count = max(len(rows.domain("source")), len(rows.domain("target")))
    assert len(samples) % count == 0

    def partner(data, index):
        return data[index]["target"]

    for index in (0, 1, count, 2 * count + 1):
        assert torch.equal(samples[index]["source"], again[index]["source"])
        assert torch.equal(partner(samples, index), partner(again, index))
        # Both are of the person and the domain they should be.
        assert torch.equal(samples[index]["source"], samples.sources[index % count % len(samples.sources)]["source"])
    assert any(not torch.equal(partner(samples, k), partner(samples, count + k)) for k in range(count))
    assert any(not torch.equal(partner(samples, k), partner(other, k)) for k in range(count))
    lap = [partner(samples, k) for k in range(len(samples.targets))]
    assert all(any(torch.equal(t["source"], seen) for seen in lap) for t in (samples.targets[k] for k in range(3)))


def test_fit_predict_evaluate_and_report(table, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["fit", "cyclegan", "--data", str(table), "--out", str(run), *OPTIONS]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "10 sources and 10 targets to train on, no pairs" in said
    results = tmp_path / "results"
    assert main(["evaluate", str(run), "--data", str(table), "--out", str(results), "--split", "test"]) == 0
    summary = json.loads((results / "summary.json").read_text())
    held_out = [row for row in read_pairs(table, ("source",)).split("test") if row.conditions["domain"] == "source"]
    assert summary["n"] == len(held_out) > 0
    assert main(["report", str(results)]) == 0
    out = tmp_path / "traces"
    assert main(["predict", str(run), str(table), "--split", "test", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(row.id for row in held_out)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(table), "--out", str(results), "--split", "train"]) == 2
    assert "names no target in a row of split train" in capsys.readouterr().err


def test_a_domain_is_source_or_target(table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("domain")
    cells = lines[1].split(",")
    cells[column] = "mr"
    (table.parent / "wrong.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    assert main(["fit", "cyclegan", "--data", str(table.parent / "wrong.csv"), "--out", str(tmp_path / "x")]) == 2
    assert "line 2: the domain is 'mr'; expected source or target" in capsys.readouterr().err
