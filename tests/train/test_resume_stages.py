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
    found = load_weights(out / "model.safetensors")
    assert found.keys() == unbroken[more].keys()
    for name, tensor in unbroken[more].items():
        # One machine: the same numbers in the same order.
        difference = (found[name] - tensor).double().norm()
        assert float(difference) <= 1e-5 * float(tensor.double().norm()) + 1e-12, name


def test_a_term_of_a_stretch_in_which_a_stage_ends_is_the_mean_over_its_own_steps(table, tmp_path, monkeypatch):
    out, take, found = tmp_path / "run", DiffDef.training_step, {}

    def kept(self, *given):
        found[given[-1]] = take(self, *given)
        return found[given[-1]]

    monkeypatch.setattr(DiffDef, "training_step", kept)
    assert cli.main(command(table, out)) == 0
    with (out / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    # The first stage ends after step 4, and rows are written after steps 2, 5, 8 and so on.
    assert float(rows[6]["similarity"]) == pytest.approx(float(found[5]["similarity"]))
    assert float(rows[6]["image"]) == pytest.approx(float(found[3]["image"] + found[4]["image"]) / 2)
    assert float(rows[9]["loss"]) == pytest.approx(sum(float(found[n]["loss"]) for n in (6, 7, 8)) / 3)
