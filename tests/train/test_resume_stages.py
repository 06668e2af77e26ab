"""A fit of several stages that is stopped in any of them goes on there, and ends as an unbroken one."""

import csv
import signal

import pytest

from whence import cli
from whence.data.phantom import write_phantom
from whence.io import load_weights
from whence.models.diffdef import DiffDef

SMALL = "--vae_features [8,16] --features [16,32] --blocks 1 --attention 1 --width 16 --down [8,16] --up [16,8]"
# Checkpoints lie within the stages: steps 0 to 4, 5 to 9, 10 to 14.
STEPS = "--vae_steps 5 --registration_steps 5 --steps 15 --save_every 3 --batch_size 2 --neighbours 2 --solver_steps 3"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_phantom("cohort", 12, 32, tmp_path_factory.mktemp("stages") / "cohort")


# What is kept of people is found anew, and is the same.
KEPT = "--gradient exact --anchor 0.5 --registered 1 --told true --maps 2"


def command(table, out, more=""):
    return ["fit", "diffdef", "--data", str(table), "--out", str(out), *SMALL.split(), *STEPS.split(), *more.split()]


@pytest.fixture(scope="module")
def unbroken(table):
    found = {}
    for name, more in (("plain", ""), ("kept", KEPT)):
        out = table.parent.parent / name
        assert cli.main(command(table, out, more)) == 0
        found[more] = load_weights(out / "model.safetensors")
    return found


@pytest.mark.parametrize(("stopped", "goes_on", "more"), [(4, 3, ""), (8, 6, ""), (11, 9, ""), (13, 12, KEPT)])
def test_it_goes_on_in_its_stage(table, unbroken, tmp_path, monkeypatch, capsys, stopped, goes_on, more):
    out, take, taken = tmp_path / "run", DiffDef.training_step, []

    def step(self, *given):
        taken.append(given[-1])
        if given[-1] == stopped:
            raise KeyboardInterrupt
        return take(self, *given)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(DiffDef, "training_step", step)
        assert cli.main(command(table, out, more)) == 130
    signal.signal(signal.SIGINT, handler)
    assert f"goes on at step {goes_on} of 15" in capsys.readouterr().err

    def counted(self, *given):
        taken.append(given[-1])
        return take(self, *given)

    taken.clear()
    monkeypatch.setattr(DiffDef, "training_step", counted)
    assert cli.main(command(table, out, more)) == 0
    assert taken == list(range(goes_on, 15))
    # Of a stretch in which a stage ends each term is the mean over its own steps.
    with (out / "metrics.csv").open() as file:
        rows = {int(float(row["step"])): row for row in csv.DictReader(file)}
    assert abs(float(rows[6]["similarity"]) - float(rows[9]["similarity"])) < 0.3 * float(rows[9]["similarity"])
    found = load_weights(out / "model.safetensors")
    assert found.keys() == unbroken[more].keys()
    for name, tensor in unbroken[more].items():
        # One machine: the same numbers in the same order.
        difference = (found[name] - tensor).double().norm()
        assert float(difference) <= 1e-5 * float(tensor.double().norm()) + 1e-12, name
