"""A run that is killed, wherever it is, and started again ends with the weights of an unbroken one."""

import csv
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch

from whence.cli import main
from whence.io import load_weights
from whence.models.tracetrans import TraceTrans
from whence.train.checkpoints import WholeCheckpoints, latest_checkpoint

CHANGES = {"steps": 14, "save_every": 4, "schedule": "linear"}

# The command line with one thing added: it kills itself.
KILLED = """
import os, signal, sys
def die():
    os.kill(os.getpid(), signal.SIGKILL)
{how}
from whence.cli import main
sys.exit(main(sys.argv[1:]))
"""
AT_STEP = """
from whence.models.tracetrans import TraceTrans
take, taken = TraceTrans.training_step, []
def step(self, *given):
    taken.append(1)
    return die() if len(taken) == {step} else take(self, *given)
TraceTrans.training_step = step
"""
WHILE_WRITING = """
import torch
from whence.train import checkpoints
save, saved = torch.save, []
def half(content, file):
    saved.append(1)
    if len(saved) < {count}:
        return save(content, file)
    import io
    whole = io.BytesIO()
    save(content, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    die()
checkpoints.torch.save = half
"""


def weights(run):
    return load_weights(run / "model.safetensors")


def relative_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).norm() / b[n].norm().clamp_min(1e-30)) for n in a)


def logged_steps(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def unbroken(surgery, fit_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert main(fit_command(surgery, out, **CHANGES)) == 0
    return out


def finishes_as(unbroken, command, out):
    assert main(command) == 0
    # One machine, one thread: the same numbers in the same order.
    assert relative_difference(weights(out), weights(unbroken)) <= 1e-5
    assert logged_steps(out) == logged_steps(unbroken) == [4, 8, 12, 14]


@pytest.mark.parametrize(
    ("how", "checkpoints"),
    [
        (AT_STEP.format(step=7), ["last.ckpt"]),
        pytest.param(AT_STEP.format(step=3), [], marks=pytest.mark.slow),
        pytest.param(AT_STEP.format(step=14), ["last.ckpt", "previous.ckpt"], marks=pytest.mark.slow),
        pytest.param(WHILE_WRITING.format(count=1), [], marks=pytest.mark.slow),
        pytest.param(WHILE_WRITING.format(count=2), ["last.ckpt"], marks=pytest.mark.slow),
    ],
    ids=["mid-stretch", "before-any-checkpoint", "last-step", "writing-the-first", "writing-the-second"],
)
def test_killed_and_started_again(how, checkpoints, unbroken, surgery, fit_command, tmp_path):
    command = fit_command(surgery, tmp_path / "run", **CHANGES)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = KILLED.format(how=how)
    killed = subprocess.run([sys.executable, "-c", script, *command], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.glob("[!.]*.ckpt")) == checkpoints
    assert not (tmp_path / "run" / "model.safetensors").exists()
    finishes_as(unbroken, command, tmp_path / "run")
    assert not list(folder.glob(".*"))


@pytest.fixture
def interrupted(surgery, fit_command, tmp_path, monkeypatch, capsys):
    """A run stopped by Ctrl+C in its third stretch, and its command."""
    command = fit_command(surgery, tmp_path / "run", **CHANGES)
    with monkeypatch.context() as patch:
        take, taken = TraceTrans.training_step, []

        def step(self, *given):
            taken.append(1)
            if len(taken) == 11:
                raise KeyboardInterrupt
            return take(self, *given)

        patch.setattr(TraceTrans, "training_step", step)
        handler = signal.getsignal(signal.SIGINT)
        assert main(command) == 130
        assert "goes on at step 8 of 14" in capsys.readouterr().err
        signal.signal(signal.SIGINT, handler)
    return tmp_path / "run", command


def torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_interrupted_and_started_again(interrupted, unbroken, capsys):
    run, command = interrupted
    finishes_as(unbroken, command, run)
    assert "goes on at step 8 of 14" in capsys.readouterr().out


def test_a_table_that_changed_is_noticed(interrupted, surgery, tmp_path, capsys):
    run, command = interrupted
    lines = surgery.read_text().splitlines()
    try:
        surgery.write_text("\n".join(lines[:-1]) + "\n")
        assert main(command) == 2
    finally:
        surgery.write_text("\n".join(lines) + "\n")
    assert "holds a run of other settings (pairs: " in capsys.readouterr().err
    assert not (run / "model.safetensors").exists()


def test_another_methods_run_is_named(interrupted, capsys):
    run, command = interrupted
    data = command[command.index("--data") + 1]
    assert main(["fit", "pix2pix", "--data", data, "--out", str(run)]) == 2
    assert f"{run} holds a run of {command[1]}; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [torn, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(bytes(5000))])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, interrupted, unbroken, capsys):
    run, command = interrupted
    damage(run / "checkpoints" / "last.ckpt")
    finishes_as(unbroken, command, run)
    assert "last.ckpt is damaged" in capsys.readouterr().err


def test_two_damaged_checkpoints_mean_starting_again(interrupted, unbroken):
    run, command = interrupted
    torn(run / "checkpoints" / "last.ckpt")
    torn(run / "checkpoints" / "previous.ckpt")
    finishes_as(unbroken, command, run)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_checkpoint_is_never_unpickled(form, interrupted, tmp_path, capsys):
    run, command = interrupted
    trap = tmp_path / "sprung"
    path = run / "checkpoints" / "last.ckpt"
    if form == "zip":
        torch.save({"state_dict": {}, "more": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trap), protocol=2))
    capsys.readouterr()
    assert main(command) == 2
    assert "last.ckpt holds more than tensors" in capsys.readouterr().err
    assert not trap.exists()
    assert not (run / "model.safetensors").exists()


def test_a_checkpoint_of_another_model_is_refused(interrupted, surgery, fit_command, tmp_path, capsys):
    run, command = interrupted
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = content["state_dict"][name][:2]
    torch.save(content, run / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    assert main(command) == 2
    assert f"of another model: weight {name!r}" in capsys.readouterr().err
    torch.save({"a": torch.zeros(1)}, run / "checkpoints" / "last.ckpt")
    assert main(command) == 2
    assert "no training checkpoint" in capsys.readouterr().err


def test_a_failing_write_keeps_both_checkpoints(tmp_path, monkeypatch):
    disk = WholeCheckpoints()
    for value in (1.0, 2.0):
        disk.save_checkpoint({"value": torch.tensor(value)}, tmp_path / "last.ckpt")

    def fails(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("whence.train.checkpoints.torch.save", fails)
        with pytest.raises(ValueError, match="No space left"):
            disk.save_checkpoint({"value": torch.tensor(3.0)}, tmp_path / "last.ckpt")
    found = {path.name: float(disk.load_checkpoint(path)["value"]) for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2.0, "previous.ckpt": 1.0}


def test_no_checkpoint_is_no_error(tmp_path):
    assert latest_checkpoint(tmp_path / "none", {}) is None
