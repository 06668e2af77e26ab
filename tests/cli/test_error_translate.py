"""whence error, whence translate, whence predict --evaluator: whole outputs, one sentence for mistakes."""

import json
import shutil

import numpy as np
import pytest
import torch

from whence.cli import main
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.io import read
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.compare import middle_slice

FIT = {
    "network": "unet",
    "features": "[8,8]",
    "conditional": "true",
    "steps": 4,
    "save_every": 2,
    "batch_size": 2,
    "threads": 1,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """pairs.csv of 6 multimodal cases of 32x32 voxels."""
    return write_phantom("multimodal", 6, 32, tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def run(heads, tmp_path_factory):
    """An evaluator's run, from a table that names sources alone."""
    table = heads.parent / "sources.csv"
    lines = ["id,source,split"]
    lines += [
        f"{row.id},{row.files['source'].relative_to(heads.parent.resolve())},{row.split}" for row in read_pairs(heads)
    ]
    table.write_text("\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("runs") / "imse"
    assert main(["fit", "imse", "--data", str(table), "--out", str(out), *(f"--{k}={v}" for k, v in FIT.items())]) == 0
    return out


def test_an_error_map_its_picture_and_its_trace(heads, run, tmp_path, capsys):
    row = read_pairs(heads).rows[-1]
    out = tmp_path / "error"
    assert main(["error", str(run), str(row.path("target")), str(row.path("source")), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "mean spatial error in the body: 0." in said
    found = read(out / "error.nii.gz")
    assert found.grid.same_as(read(row.path("source")).grid)
    assert 0 <= float(found.tensor.min()) <= float(found.tensor.max()) <= 1
    assert (out / "error.png").read_bytes()[:4] == b"\x89PNG"
    assert Trace.load(out).info["kind"] == "compared"
    assert main(["report", str(out)]) == 0
    assert "<title>Spatial error" in (out / "report.html").read_text()
    trace = Trace.load(out)
    assert torch.allclose(trace.extras["spatial error"].tensor, found.tensor)
    assert f"{trace.info['spatial_error_mean']:.4f}" in said
    assert main(["report", str(out)]) == 0
    assert "spatial error" in (out / "report.html").read_text(encoding="utf-8")


def test_a_translation_on_the_sources_grid(heads, run, tmp_path):
    row = read_pairs(heads).rows[-1]
    out = tmp_path / "translated.nii.gz"
    assert main(["translate", str(run), str(row.path("target")), str(row.path("source")), "--out", str(out)]) == 0
    reference = read(row.path("source"))
    found = read(out)
    assert found.grid.same_as(read(row.path("target")).grid)
    # on the reference's scale of intensities
    assert 0.5 < float(found.tensor.max() / reference.tensor.max()) < 1.5


def test_an_evaluator_judges_novelty(heads, run, trained, surgery, tmp_path):
    source = read_pairs(surgery).rows[-1].path("source")
    given = ["predict", str(trained), str(source), "--out"]
    assert main([*given, str(tmp_path / "usual")]) == 0
    assert main([*given, str(tmp_path / "judged"), "--evaluator", str(run)]) == 0
    usual, judged = Trace.load(tmp_path / "usual"), Trace.load(tmp_path / "judged")
    assert torch.equal(usual.image.tensor, judged.image.tensor)
    assert not torch.equal(usual.novelty.tensor, judged.novelty.tensor)
    assert judged.info["novelty"] == "by imse"


def test_a_table_gives_the_reference(heads, run, tmp_path):
    out = tmp_path / "traces"
    assert main(["predict", str(run), str(heads), "--split", "test", "--out", str(out)]) == 0
    (folder,) = out.iterdir()
    assert "spatial error" in Trace.load(folder).extras
    assert main(["evaluate", str(run), "--data", str(heads), "--out", str(tmp_path / "results")]) == 0
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["n"] == 1


def test_mistakes(heads, run, trained, tmp_path, capsys):
    row = read_pairs(heads).rows[0]
    source, target = str(row.path("source")), str(row.path("target"))
    cases = [
        (["error", str(trained), target, source, "--out", str(tmp_path / "x")], "estimates no spatial error"),
        (["translate", str(trained), target, source, "--out", str(tmp_path / "x.nii.gz")], "translates no image"),
        (["translate", str(run), target, "--out", str(tmp_path / "x.nii.gz")], "takes the appearance of a reference"),
        (["predict", str(run), source, "--out", str(tmp_path / "x")], "compares the image with a target"),
        (
            ["predict", str(run), str(heads), "--target", source, "--out", str(tmp_path / "x")],
            "names its own target",
        ),
        (
            [
                "predict",
                str(run),
                target,
                "--target",
                source,
                "--evaluator",
                str(trained),
                "--out",
                str(tmp_path / "x"),
            ],
            "estimates no spatial error",
        ),
        (["fit", "imse", "--data", str(heads), "--out", str(heads.parent)], "is the folder of the data, pairs.csv"),
        (["phantom", "surgery", "--source", "t1", "--out", str(tmp_path / "x")], "has no option 'source'"),
    ]
    for given, sentence in cases:
        assert main(given) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_training_from_sources_resumes(heads, run, tmp_path):
    """The running quantiles are part of what a checkpoint keeps."""
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    (stopped / "model.safetensors").unlink()
    table = heads.parent / "sources.csv"
    given = ["fit", "imse", "--data", str(table), "--out", str(stopped), *(f"--{k}={v}" for k, v in FIT.items())]
    assert main(given) == 0
    assert (stopped / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_registration_by_an_evaluator(heads, run, trained, tmp_path, capsys):
    row = read_pairs(heads).rows[0]
    pair = ["register", str(row.path("target")), str(row.path("source"))]
    assert main([*pair, "--similarity", str(run), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "energy.csv").open() as file:
        rows = [line.split(",") for line in file.read().splitlines()[1:]]
    energies = [float(energy) for stage, _, energy in rows if "affine" not in stage]
    # One level, that of the run's training.
    assert len({stage for stage, *_ in rows if "affine" not in stage}) == 1
    assert min(energies) < energies[0]
    assert main([*pair, "--similarity", str(trained), "--out", str(tmp_path / "none")]) == 2
    assert "estimates no spatial error" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_evaluator_of_other_images(run, tmp_path, capsys):
    """A plane's network serves volumes, a channel's no others; a registration network says so before it trains."""
    write_phantom("multimodal", 3, 32, tmp_path / "volumes", dims=3)
    given = ["fit", "regnet", "--data", str(tmp_path / "volumes" / "pairs.csv"), "--similarity", str(run)]
    assert main([*given, "--out", str(tmp_path / "net")]) == 2
    assert "sees 2D images of 1 channel(s); expected 3D ones of 1" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "has_right"), [(0, False), (1, True), (2, True)])
def test_the_slice_that_is_shown(missing, has_right):
    """A volume of one slice shows it whichever way it lies; the patient's right comes first."""
    shape = [6, 7, 8]
    shape[missing] = 1
    values = torch.arange(float(np.prod(shape))).reshape(1, 1, *shape)
    shown, right = middle_slice(Volume(values, Grid(tuple(shape), np.eye(4))))
    assert shown.shape == tuple(n for n in shape if n > 1)
    assert right == has_right
    # The last voxel along R is the first that is shown.
    assert shown[0, 0] == (values[0, 0, -1, 0, 0] if has_right else 0)
