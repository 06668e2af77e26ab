"""Train, predict, evaluate, load: a small phantom from one end to the other."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch

import whence
from whence.cli import main
from whence.data import read_pairs
from whence.errors import InputError
from whence.io import load_weights, load_yaml, save_weights
from whence.train.run import RunConfig, differences, load
from whence.train.settings import TrainConfig
from whence.train.training import rate_factor


def contents(folder):
    return {p.relative_to(folder): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_a_run_folder_is_whole(trained):
    assert {p.name for p in trained.iterdir()} >= {
        "config.yaml",
        "model.safetensors",
        "checkpoints",
        "metrics.csv",
        "environment.json",
    }
    config = RunConfig.from_file(trained / "config.yaml")
    assert config.train.steps == 6
    assert config.frame.shape == (32, 32)
    assert differences(config, config) == []
    with (trained / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    assert all(np.isfinite(float(row["loss"])) and np.isfinite(float(row["val_l1"])) for row in rows)


def test_a_finished_run_is_left_alone(trained, surgery, fit_command, capsys):
    before = contents(trained)
    assert main(fit_command(surgery, trained)) == 0
    assert "is finished already" in capsys.readouterr().out
    assert contents(trained) == before


def test_training_says_what_it_found(surgery, fit_command, tmp_path, capsys):
    assert main(fit_command(surgery, tmp_path / "run")) == 0
    said = " ".join(capsys.readouterr().out.split())
    counts = Counter(row.split for row in read_pairs(surgery))
    assert ", ".join(f"{n} {name}" for name, n in counts.items()) + "; images of 32x32 voxels of" in said


def test_a_recipe_of_another_method_is_refused(surgery, tmp_path, capsys):
    given = ["--data", str(surgery), "--out", str(tmp_path / "run")]
    assert main(["fit", "tracetrans", "--config", "pix2pix-cpu", *given]) == 2
    assert "neither a file nor one of tracetrans's recipes: tracetrans-cpu" in capsys.readouterr().err


def test_other_settings_in_one_folder_are_refused(trained, surgery, fit_command, capsys):
    before = contents(trained)
    assert main(fit_command(surgery, trained, steps=9, alpha=0.25)) == 2
    said = capsys.readouterr().err
    assert "alpha: 0.5 -> 0.25" in said
    assert "steps: 6 -> 9" in said
    assert contents(trained) == before


def test_the_same_seed_gives_the_same_weights(trained, surgery, fit_command, tmp_path):
    assert main(fit_command(surgery, tmp_path / "a")) == 0
    assert main(fit_command(surgery, tmp_path / "b", seed=1)) == 0
    first, same, other = (load_weights(run / "model.safetensors") for run in (trained, tmp_path / "a", tmp_path / "b"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_predict_an_image_and_a_table(trained, surgery, tmp_path):
    row = whence_rows(surgery)[-1]
    image = surgery.parent / row["source"]
    assert main(["predict", str(trained), str(image), "--out", str(tmp_path / "one")]) == 0
    assert main(["predict", str(trained), str(surgery), "--out", str(tmp_path / "all"), "--split", "test"]) == 0
    one, same = whence.Trace.load(tmp_path / "one"), whence.Trace.load(tmp_path / "all" / row["id"])
    assert one.info["kind"] == "predicted"
    assert one.target is None
    assert same.target is not None
    assert same.labels is not None
    assert torch.equal(one.image.tensor, same.image.tensor)
    direct = whence.load(trained).predict(whence.read(image))
    assert torch.allclose(direct.image.tensor, one.image.tensor)
    points = direct.image.grid.to_world(np.random.default_rng(0).uniform(4, 27, (20, 2)))
    assert np.allclose(one.whence(points), direct.whence(points), atol=1e-4)


def test_evaluate_gives_every_figure(trained, surgery, tmp_path):
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(trained), "--data", str(surgery), "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    names = {metric["name"] for metric in summary["metrics"]}
    assert names >= {"ssim", "psnr", "nmi", "mae", "displacement_error", "tre", "dice", "edges_target", "folding"}
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row["id"] for row in whence_rows(surgery) if row["split"] == "test"]
    assert float(rows[0]["nothing_displacement_error"]) > 0
    assert whence.Trace.load(next((out / "cases").iterdir())).target is not None


def test_3d_from_end_to_end(surgery_3d, fit_command, tmp_path):
    run, out = tmp_path / "run", tmp_path / "evaluation"
    assert main(fit_command(surgery_3d, run, batch_size=1, steps=2, save_every=1)) == 0
    assert main(["evaluate", str(run), "--data", str(surgery_3d), "--out", str(out)]) == 0
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").stat().st_size > 10_000
    assert whence.Trace.load(next((out / "cases").iterdir())).image.dims == 3


def test_bf16_takes_a_step(surgery, fit_command, tmp_path):
    assert main(fit_command(surgery, tmp_path / "run", precision="bf16-mixed", steps=2, save_every=2)) == 0
    state = load_weights(tmp_path / "run" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in state.values())


def test_weights_must_be_the_runs_own(trained, surgery, fit_command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    path = run / "model.safetensors"
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(InputError, match="damaged or not safetensors"):
        load(run)
    state = load_weights(trained / "model.safetensors")
    name = next(iter(state))
    save_weights({**state, name: state[name][:1]}, path)
    with pytest.raises(InputError, match=f"weight '{name}' is"):
        load(run)
    other = tmp_path / "other"
    assert main(fit_command(surgery, other, method="pix2pix", alpha=None, gamma=None)) == 0
    shutil.copy(other / "model.safetensors", path)
    with pytest.raises(InputError, match=r"not of this tracetrans run: weight .* is None"):
        load(run)
    path.unlink()
    with pytest.raises(InputError, match="has not finished"):
        load(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [("method", "alchemy"), ("model", {"wings": 2}), ("model", None), ("train", {"steps": 0}), ("frame", {"dims": 2})],
)
def test_a_config_of_nothing_known(key, value, trained, tmp_path):
    from whence.io import save_yaml

    shutil.copytree(trained, tmp_path / "run")
    save_yaml({**load_yaml(trained / "config.yaml"), key: value}, tmp_path / "run" / "config.yaml")
    with pytest.raises(InputError, match=r"config\.yaml is not the config of a whence run"):
        load(tmp_path / "run")


def test_settings_that_cannot_be_trained_leave_no_run(surgery, fit_command, tmp_path, capsys):
    run = tmp_path / "run"
    for change, said in (
        ({"accelerator": "abacus"}, "accelerator 'abacus'"),
        ({"precision": "7-bit"}, "precision '7-bit'"),
        ({"features": "[28,32]"}, "make no tracetrans network"),
        ({"features": "[8,8,8,8,8,8,8]"}, "at least 64 voxels"),
    ):
        assert main(fit_command(surgery, run, **change)) == 2
        assert said in capsys.readouterr().err
        assert not (run / "config.yaml").exists()
    assert main(fit_command(surgery, run, steps=1, save_every=1)) == 0


def test_rate_factor():
    linear = TrainConfig(steps=100, schedule="linear")
    assert [rate_factor(linear, step) for step in (0, 50, 75, 100)] == pytest.approx([1, 1, 0.5, 0])
    cosine = TrainConfig(steps=100, schedule="cosine")
    assert [rate_factor(cosine, step) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert rate_factor(TrainConfig(steps=100), 99) == 1
    # Stages of 20, 30 and 50 steps.
    found = [rate_factor(cosine, step, (20, 30)) for step in (0, 10, 20, 35, 50, 75, 100)]
    assert found == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5, 0])
    assert [rate_factor(cosine, step, (0,)) for step in (0, 50)] == pytest.approx([1, 0.5])


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": -1}, {"size": (0, 8)}, {"spacing": (1.0, -1.0)}, {"threads": -1}, {"noise": -0.1}],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**{**asdict(TrainConfig()), **wrong})


def whence_rows(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))
