"""Conditional atlases on the command line: fit, atlas, sweep, report, evaluate; what makes no sense is said."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from whence import cli
from whence.data.pairs import read_pairs, write_pairs
from whence.data.phantom import write_phantom
from whence.io import read, read_labels, write
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.general import keep_general

SMALL = "--vae_features [8,16] --features [16,32] --blocks 1 --attention 1 --width 16 --down [8,16] --up [16,8]"
STEPS = "--vae_steps 2 --registration_steps 2 --steps 6 --save_every 3 --batch_size 2 --neighbours 2 --solver_steps 3"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    table = write_phantom("cohort", 12, 32, folder / "cohort")
    words = ["fit", "diffdef", "--data", str(table), "--out", str(folder / "run"), *SMALL.split(), *STEPS.split()]
    assert cli.main([*words, "--conditions", "[age,ventricular_volume]"]) == 0
    return folder / "run"


def test_the_run_keeps_the_general_atlas(run):
    assert read(run / "general.nii.gz").tensor.shape == (1, 1, 32, 40)
    assert set(read_labels(run / "general_labels.nii.gz").tensor.unique().tolist()) == {0, 1, 2, 3, 4}
    known = json.loads((run / "attributes.json").read_text())
    assert known["names"] == ["age", "ventricular_volume"]


def test_another_tables_general_atlas_goes(tmp_path):
    table = read_pairs(write_phantom("cohort", 2, 32, tmp_path / "cohort"))
    keep_general(table, tmp_path)
    write(Volume(torch.rand(1, 1, 8, 8), Grid.regular((8, 8))), tmp_path / "other.nii.gz")
    row = replace(table.rows[0], files={"source": tmp_path / "other.nii.gz"})
    keep_general(replace(table, rows=(row,)), tmp_path, anew=False)
    assert read(tmp_path / "general.nii.gz").tensor.shape == (1, 1, 32, 40)
    keep_general(replace(table, rows=(row,)), tmp_path)
    assert read(tmp_path / "general.nii.gz").tensor.shape == (1, 1, 8, 8)
    assert not (tmp_path / "general_labels.nii.gz").is_file()


@pytest.mark.parametrize("split", ["train", "val"])
def test_rows_of_several_atlases_are_refused(tmp_path, capsys, split):
    table = read_pairs(write_phantom("cohort", 4, 32, tmp_path / "cohort"))
    other = table.rows[0].path("target")
    rows = [{"id": r.id, "split": "train", **r.files, **r.conditions} for r in table.split("train")]
    write_pairs(tmp_path / "pairs.csv", [rows[0] | {"source": other, "split": split}, *rows[1:]])
    words = ["fit", "diffdef", "--data", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "run")]
    assert cli.main([*words, *SMALL.split(), *STEPS.split()]) == 2
    assert "names 2 sources; diffdef expected one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_atlas_is_a_trace(run, tmp_path):
    out = tmp_path / "one"
    assert cli.main(["atlas", str(run), "--condition", "age=65", "--samples", "2", "--out", str(out)]) == 0
    trace = Trace.load(out)
    assert trace.info["kind"] == "predicted"
    assert trace.labels is not None
    assert trace.extras["conditions"][0]["age"] == "65"
    assert set(trace.extras["volumes [ml]"][0]) >= {"ventricles", "grey matter"}
    assert {"log Jacobian", "mean of 2 draws", "deviation of the place [mm]"} <= set(trace.extras)
    assert cli.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<title>Conditional atlas" in page
    # Nobody's scan has gone anywhere.
    assert "General atlas" in page


def test_a_sweep_has_a_page_with_a_slider(run, tmp_path):
    out = tmp_path / "ages"
    assert cli.main(["atlas", str(run), "--sweep", "age=20:80:20", "--out", str(out)]) == 0
    assert cli.main(["report", str(out)]) == 0
    assert [path.name for path in sorted((out / "cases").iterdir())] == ["age_20", "age_40", "age_60", "age_80"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="sweep" type="range" min="0" max="3"' in page


def test_rows_bring_their_conditions(run, tmp_path):
    table = run.parent / "cohort" / "pairs.csv"
    assert cli.main(["evaluate", str(run), "--data", str(table), "--out", str(tmp_path / "e")]) == 0
    tested = read_pairs(table).split("test")
    for row in tested:
        found = Trace.load(tmp_path / "e" / "cases" / row.id).extras["conditions"][0]
        assert found == {name: row.conditions[name] for name in found}
        assert found.keys() >= row.conditions.keys() & {"age", "ventricular_volume"}
    assert tested.rows


def test_a_condition_that_nobody_had_is_said(run, tmp_path, capsys):
    assert cli.main(["atlas", str(run), "--condition", "age=400", "--out", str(tmp_path / "old")]) == 0
    assert "note: age=400 lies" in capsys.readouterr().out
    assert cli.main(["atlas", str(run), "--sweep", "age=40:60:10", "--out", str(tmp_path / "ages")]) == 0
    assert "note: age" not in capsys.readouterr().out


def test_a_run_without_its_conditions_is_said(run, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "attributes.json").unlink()
    assert cli.main(["atlas", str(other), "--out", str(tmp_path / "x")]) == 2
    assert "has no attributes.json" in capsys.readouterr().err


def test_an_atlas_that_lies_elsewhere_is_refused(run, tmp_path, capsys):
    own = read(run / "general.nii.gz")
    affine = own.grid.affine.copy()
    affine[0, 2] += 90
    write(Volume(own.tensor, Grid(own.grid.shape, affine)), tmp_path / "away.nii.gz")
    words = ["atlas", str(run), "--image", str(tmp_path / "away.nii.gz"), "--out", str(tmp_path / "x")]
    assert cli.main(words) == 2
    assert "lies 90 mm from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--condition", "height=3"], "knows nothing of 'height'; expected age or ventricular_volume"),
        (["--condition", "age"], "as age=VALUE"),
        (["--condition", "age=old"], "age is 'old'; expected a number"),
        (["--sweep", "age=80:20:5"], "steps away from its last value"),
        (
            ["--sweep", "age=20:30:20"],
            "expected a sweep of 2 to 200 values from FIRST to LAST by STEP; 'age=20:30:20' has 1",
        ),
        (["--sweep", "age=80"], "age=FIRST:LAST:STEP"),
        (["--sweep", "age=nan:80:5"], "age=FIRST:LAST:STEP"),
        (["--sweep", "age=20:inf:5"], "age=FIRST:LAST:STEP"),
        (["--sweep", "age=20:80:20", "--condition", "age=3"], "as a condition and as a sweep"),
        (["--samples", "0"], "1 sample or more"),
    ],
)
def test_what_makes_no_sense_is_said(run, tmp_path, capsys, words, reason):
    assert cli.main(["atlas", str(run), "--out", str(tmp_path / "x"), *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_table_without_the_condition_is_refused(run, tmp_path, capsys):
    table = run.parent / "cohort" / "pairs.csv"
    words = ["fit", "diffdef", "--data", str(table), "--out", str(tmp_path / "x"), *SMALL.split(), *STEPS.split()]
    assert cli.main([*words, "--conditions", "[height]"]) == 2
    assert "no row to train on has 'height'" in capsys.readouterr().err


def test_a_finer_atlas_keeps_its_detail(run, tmp_path):
    """The model sees 5 mm; an atlas of 2.5 mm is carried as it is, by the same field."""
    own = read(run / "general.nii.gz")
    affine = own.grid.affine.copy()
    affine[:2, :2] /= 2
    grid = Grid(tuple(2 * n for n in own.grid.shape), affine)
    fine = torch.rand((1, 1, *grid.shape), generator=torch.Generator().manual_seed(0))
    write(Volume(fine, grid), tmp_path / "fine.nii.gz")
    words = ["atlas", str(run), "--image", str(tmp_path / "fine.nii.gz"), "--condition", "age=60"]
    assert cli.main([*words, "--out", str(tmp_path / "x")]) == 0
    trace = Trace.load(tmp_path / "x")
    # But for the rounding of intensities that go to the model's range and back.
    torch.testing.assert_close(trace.image.tensor, trace.warped_source.tensor, atol=1e-3, rtol=0)


def test_a_folder_holds_one_atlas_or_one_sweep(run, tmp_path, capsys):
    sweep, single = ["--sweep", "age=20:60:20"], ["--condition", "age=65"]
    assert cli.main(["atlas", str(run), *sweep, "--out", str(tmp_path / "ages")]) == 0
    assert cli.main(["atlas", str(run), *single, "--out", str(tmp_path / "ages")]) == 2
    assert "holds a sweep" in capsys.readouterr().err
    assert cli.main(["atlas", str(run), "--sweep", "age=20:60:40", "--out", str(tmp_path / "ages")]) == 0
    assert sorted(p.name for p in (tmp_path / "ages" / "cases").iterdir()) == ["age_20", "age_60"]
    assert cli.main(["atlas", str(run), *single, "--out", str(tmp_path / "one")]) == 0
    assert cli.main(["atlas", str(run), *sweep, "--out", str(tmp_path / "one")]) == 2
    assert "holds one atlas" in capsys.readouterr().err
    # What no sweep has made is not taken for a sweep's.
    kept = tmp_path / "evaluation" / "cases" / "patient"
    kept.mkdir(parents=True)
    (tmp_path / "evaluation" / "summary.json").write_text('{"cases": ["patient"]}')
    assert cli.main(["atlas", str(run), *sweep, "--out", str(tmp_path / "evaluation")]) == 2
    assert "holds an evaluation" in capsys.readouterr().err
    assert kept.is_dir()


def test_a_prediction_says_for_whom_it_is(run, tmp_path):
    out = tmp_path / "p"
    assert cli.main(["predict", str(run), str(run / "general.nii.gz"), "--condition", "age=65", "--out", str(out)]) == 0
    assert Trace.load(out).extras["conditions"] == [{"age": "65"}]


def test_conditions_may_be_named_one_by_one(run, tmp_path):
    out = str(tmp_path / "one")
    # What is written out wins over a file of settings.
    (tmp_path / "asked.yaml").write_text("condition: [age=50]")
    words = ["--condition", "age=65", "--config", str(tmp_path / "asked.yaml"), "--condition=ventricular_volume=20"]
    assert cli.main(["atlas", str(run), *words, "--out", out]) == 0
    assert Trace.load(out).extras["conditions"][0] == {"age": "65", "ventricular_volume": "20"}


def test_a_prediction_of_the_atlas_is_the_atlas(run, tmp_path, capsys):
    general, words = str(run / "general.nii.gz"), ["--condition", "age=65", "--out"]
    assert cli.main(["atlas", str(run), *words, str(tmp_path / "atlas")]) == 0
    assert cli.main(["predict", str(run), general, *words, str(tmp_path / "predicted")]) == 0
    assert "note" not in capsys.readouterr().out
    fields = [Trace.load(tmp_path / name).displacement.tensor for name in ("atlas", "predicted")]
    assert torch.equal(*fields)


def test_another_image_than_the_atlas_is_said(run, tmp_path, capsys):
    person = read_pairs(run.parent / "cohort" / "pairs.csv").rows[0].path("target")
    words = ["--condition", "age=65", "--out", str(tmp_path / "person")]
    assert cli.main(["predict", str(run), str(person), *words]) == 0
    assert "is not the general atlas of" in capsys.readouterr().out
    volume = Volume(torch.rand(1, 1, 32, 40, 32), Grid.regular((32, 40, 32)))
    write(volume, tmp_path / "volume.nii.gz")
    assert cli.main(["predict", str(run), str(tmp_path / "volume.nii.gz"), *words]) == 2
    assert "is 3D; expected a 2D atlas" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_table_that_lacks_a_condition_is_said(run, tmp_path, capsys, command):
    table = read_pairs(run.parent / "cohort" / "pairs.csv").split("test")
    rows = [{"id": r.id, "split": r.split, **r.files, "age": r.conditions["age"]} for r in table]
    table = str(write_pairs(tmp_path / "pairs.csv", rows))
    words = [table] if command == "predict" else ["--data", table]
    assert cli.main([command, str(run), *words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "has a 'ventricular_volume', which is taken for unknown in all" in said
    assert "'age'" not in said


def test_an_older_page_goes(run, tmp_path):
    out = str(tmp_path / "one")
    for age in ("30", "60"):
        assert cli.main(["atlas", str(run), "--condition", f"age={age}", "--out", out]) == 0
        # A page of the atlas before tells of what is no longer there.
        assert not (tmp_path / "one" / "report.html").exists()
        assert cli.main(["report", out]) == 0
