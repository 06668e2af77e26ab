"""fit, predict, evaluate and report of the method that looks at past cases, on slices and on slices of volumes."""

import shutil
import signal
from dataclasses import replace

import pytest
import torch

from whence.cli import main
from whence.data import read_pairs
from whence.data.dataset import read_image
from whence.data.phantom import write_phantom
from whence.field import resample
from whence.io import load_json, load_weights, read, read_labels, write, write_labels
from whence.models.cases import Asked
from whence.models.postop import Postop
from whence.retrieval import Bank
from whence.space import Volume
from whence.trace import Trace
from whence.train.run import load
from whence.train.samples import samples_of

pytest.importorskip("diffusers")
pytest.importorskip("usearch")
SMALL = ["--features=[8,16]", "--vae_features=[8,16]", "--vae_steps=2", "--solver_steps=2", "--batch_size=2"]
SHORT = ["--config", "postop-cpu", "--steps=4", "--save_every=2", "--threads=1", "--accelerator=cpu", *SMALL]


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    home = tmp_path_factory.mktemp("slices")
    table = write_phantom("surgery", 12, 48, home)
    run = home / "run"
    assert main(["fit", "postop", "--data", str(table), "--out", str(run), *SHORT]) == 0
    return table, run


def test_a_run_holds_the_bank_of_what_it_was_trained_on(slices):
    table, run = slices
    train = read_pairs(table).split("train")
    assert {case.id for case in Bank(run / "bank")} <= {row.id for row in train}
    assert len(Bank(run / "bank")) >= len(train) - 2


def test_samples_stand_beside_cases_of_other_patients(slices):
    table, run = slices
    predictor, rows = load(run), read_pairs(table).split("train")
    samples = samples_of(rows, predictor.frame, predictor.method, bank=predictor.bank)
    seen = set()
    for k in range(0, len(samples), 7):
        sample, again = samples[k], samples[k]
        assert all(torch.equal(sample[name], again[name]) for name in sample)
        query = samples.places[k % len(samples.places)]
        case = next(n for n in samples.found[query] if torch.equal(samples.pool[n]["source"], sample["case_source"]))
        assert samples.queries.ids[query] != samples.pool.ids[case]
        assert torch.equal(samples.pool[case]["target_cavity"], sample["case_target_cavity"])
        seen.add((query, case))
    assert len(seen) > len(samples.places)


def test_from_an_image_to_a_trace_and_a_report(slices, tmp_path):
    table, run = slices
    home = table.parent / "case0011"
    out = tmp_path / "trace"
    given = ["predict", str(run), str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz"), "--out"]
    assert main([*given, str(out)]) == 0
    said = load_json(out / "trace.json")
    assert said["kind"] == "predicted"
    assert [case["case"] for case in said["extra_tables"]["retrieved cases"]] == [
        Bank(run / "bank")
        .query(Bank(run / "bank").manifest.space.pack(read(home / "source_mask.nii.gz")), 1)[0]
        .case.id
    ]
    assert {"retrieved before", "retrieved after", "composite"} <= set(said["extra_images"])
    assert main([*given, str(tmp_path / "named"), "--case", "case0003"]) == 0
    assert load_json(tmp_path / "named" / "trace.json")["extra_tables"]["retrieved cases"][0]["case"] == "case0003"
    own = said["extra_tables"]["retrieved cases"][0]["patient"]
    assert main([*given, str(tmp_path / "other"), "--patient", own]) == 0
    assert load_json(tmp_path / "other" / "trace.json")["extra_tables"]["retrieved cases"][0]["patient"] != own
    # Another bank than the run's.
    few = tmp_path / "few.csv"
    rows = table.read_text().splitlines()
    few.write_text("\n".join([rows[0], *(row for row in rows if row.startswith(("case0001", "case0002")))]) + "\n")
    shutil.copytree(table.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("run"))
    shutil.move(few, tmp_path / "copy" / "few.csv")
    assert main(["bank", "build", str(tmp_path / "copy" / "few.csv"), "--out", str(tmp_path / "bank")]) == 0
    assert main([*given, str(tmp_path / "elsewhere"), "--bank", str(tmp_path / "bank")]) == 0
    shown = load_json(tmp_path / "elsewhere" / "trace.json")["extra_tables"]["retrieved cases"][0]["case"]
    assert shown in ("case0001", "case0002")
    assert main([*given, str(tmp_path / "nowhere"), "--bank", str(tmp_path)]) == 2
    plan = home / "target_mask.nii.gz"
    assert main([*given, str(tmp_path / "planned"), "--resection", str(plan)]) == 0
    planned = load_json(tmp_path / "planned" / "trace.json")
    assert planned["said"] == {"resection": str(plan), "mask": str(home / "source_mask.nii.gz")}
    assert "planned resection" in planned["extra_images"]
    apart = [read(folder / "prediction.nii.gz").tensor for folder in (out, tmp_path / "planned")]
    assert not torch.equal(*apart)
    assert main(["report", str(out)]) == 0
    assert main(["evaluate", str(run), "--data", str(table), "--out", str(tmp_path / "results"), "--cases", "1"]) == 0
    assert main(["predict", str(run), str(table), "--split", "test", "--out", str(tmp_path / "all")]) == 0


def test_several_cases_are_shown_in_turn(slices, tmp_path, capsys):
    table, run = slices
    home, out = table.parent / "case0011", tmp_path / "trace"
    given = ["predict", str(run), str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz"), "--out"]
    assert main([*given, str(out), "--cases", "3", "--samples", "4"]) == 0
    said = load_json(out / "trace.json")
    rows = said["extra_tables"]["retrieved cases"]
    bank = Bank(run / "bank")
    nearest = bank.query(bank.manifest.space.pack(read(home / "source_mask.nii.gz")), 3)
    ids = [match.case.id for match in nearest]
    assert [row["case"] for row in rows] == [*ids, ids[0]]
    assert [row["draw"] for row in rows] == [1, 2, 3, 4]
    assert min(row["from the mean"] for row in rows) > 0
    trace = Trace.load(out)
    for number in (2, 3):
        other = read_image(table.parent / ids[number - 1] / "target.nii.gz").tensor
        shown = trace.extras[f"retrieved after, draw {number}"].tensor
        assert torch.corrcoef(torch.stack([other.flatten(), shown.flatten()]))[0, 1] > 0.99
    # The fourth draw was shown what the first was.
    assert "retrieved after, draw 4" not in trace.extras
    assert main(["report", str(out)]) == 0
    assert main([*given, str(tmp_path / "many"), "--cases", "99"]) == 2
    assert "expected --cases of as many at most" in capsys.readouterr().err
    assert main([*given, str(tmp_path / "both"), "--cases", "2", "--case", ids[0]]) == 2
    assert "expected no --cases beside it" in capsys.readouterr().err


def test_slices_without_the_tumour_stay_as_they_are(tmp_path):
    table = write_phantom("surgery", 6, 32, tmp_path / "volumes", 3)
    run = tmp_path / "run"
    own = ["--plane", "axial", "--carrier=[]"]
    assert main(["fit", "postop", "--data", str(table), "--out", str(run), *SHORT, *own]) == 0
    home = table.parent / "case0005"
    given = [str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz"), "--out", str(tmp_path / "trace")]
    assert main(["predict", str(run), *given]) == 0
    # Drawn by the autoencoder alone, its trace is found by registration.
    assert load_json(tmp_path / "trace" / "trace.json")["kind"] == "recovered"
    trace, mask = Trace.load(tmp_path / "trace"), read(home / "source_mask.nii.gz")
    shown = mask.grid.to_canonical(mask.tensor)[0, 0].amax(dim=(0, 1)) > 0
    parts = [volume.grid.to_canonical(volume.tensor)[0, 0] for volume in (trace.image, trace.source)]
    apart = (parts[0] - parts[1]).abs().amax(dim=(0, 1)) / (parts[1].max() - parts[1].min())
    assert float(apart[shown].min()) > 0.05
    assert torch.equal(parts[0][..., ~shown], parts[1][..., ~shown])
    cases = {case["case"] for case in trace.extras["retrieved cases"]}
    assert len(cases) == 1
    places = torch.nonzero(shown).flatten().tolist()
    assert [case["slice"] for case in trace.extras["retrieved cases"]] == places
    # A plan that goes further is followed.
    further = mask.grid.to_canonical(mask.tensor).clone()
    middle = (places[0] + places[-1]) // 2
    further[..., places[-1] + 1] = further[..., middle]
    plan = tmp_path / "plan.nii.gz"
    write_labels(Volume(further.to(torch.uint8), mask.grid.canonical()), plan)
    assert main(["predict", str(run), *given[:-1], str(tmp_path / "planned"), "--resection", str(plan)]) == 0
    planned = [
        case["slice"] for case in load_json(tmp_path / "planned" / "trace.json")["extra_tables"]["retrieved cases"]
    ]
    assert planned == [*places, places[-1] + 1]


def test_what_a_carrier_moves_lies_in_the_slices_of_the_tumour(tmp_path):
    table = write_phantom("surgery", 6, 32, tmp_path / "volumes", 3)
    run, home = tmp_path / "run", table.parent / "case0005"
    short = [*SHORT, "--plane", "axial", "--learning_rate=0.05"]
    assert main(["fit", "postop", "--data", str(table), "--out", str(run), *short]) == 0
    given = [str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz"), "--out", str(tmp_path / "trace")]
    assert main(["predict", str(run), *given]) == 0
    trace, mask = Trace.load(tmp_path / "trace"), read(home / "source_mask.nii.gz")
    assert trace.info["kind"] == "predicted"
    shown = mask.grid.to_canonical(mask.tensor)[0, 0].amax(dim=(0, 1)) > 0
    for field in (trace.displacement, trace.inverse):
        length = field.grid.to_canonical(field.magnitude())[0, 0].amax(dim=(0, 1))
        assert float(length[~shown].max()) == 0
        assert float(length[shown].min()) > 0


def test_slips_are_answered_in_a_sentence(slices, tmp_path, capsys):
    table, run = slices
    home = table.parent / "case0011"
    image, mask = str(home / "source.nii.gz"), str(home / "source_mask.nii.gz")
    empty = tmp_path / "empty.nii.gz"
    seen = read(mask)
    write_labels(Volume(torch.zeros_like(seen.tensor, dtype=torch.uint8), seen.grid), empty)
    out = ["--out", str(tmp_path / "out")]
    for given, reason in [
        (["predict", str(run), image, *out], "sees the tumour of an image; expected its mask"),
        (["predict", str(run), image, "--mask", str(empty), *out], "the mask beside"),
        (["predict", str(run), image, "--mask", mask, "--case", "nobody", *out], "has no case 'nobody'"),
        (["predict", str(run), str(table), "--mask", mask, *out], "which names its own mask"),
        (["predict", str(run), image, "--mask", mask, "--resection", str(empty), *out], "the resection beside"),
        (["predict", str(run), str(table), "--resection", mask, *out], "which names its own resection"),
        (["predict", str(run), str(table), "--case", "case0003", *out], "which names its own case"),
        (["fit", "postop", "--data", str(table), *out, *SHORT, "--vae_steps=4"], "expected 5 or more with"),
        (["fit", "postop", "--data", str(table), *out, *SHORT, "--guidance=-1"], "guidance must lie between"),
    ]:
        capsys.readouterr()
        assert main(given) == 2, given
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_cases_come_from_where_they_lie(slices, tmp_path):
    """A scan cut off at one side is shown the same case at the same place of the world."""
    table, run = slices
    home = table.parent / "case0011"
    shown = []
    for cut in (0, 8):
        files = {}
        for name, save in (("source", write), ("source_mask", write_labels)):
            seen = read(home / f"{name}.nii.gz") if save is write else read_labels(home / f"{name}.nii.gz")
            shape = tuple(n - cut if axis == 0 else n for axis, n in enumerate(seen.grid.shape))
            part = Volume(
                seen.tensor[:, :, cut:].contiguous(), seen.grid.cropped((cut, *[0] * (len(shape) - 1)), shape)
            )
            files[name] = tmp_path / f"{name}_{cut}.nii.gz"
            save(part, files[name])
        out = tmp_path / f"trace_{cut}"
        given = [str(files["source"]), "--mask", str(files["source_mask"]), "--case", "case0002", "--out", str(out)]
        assert main(["predict", str(run), *given]) == 0
        shown.append(read(out / "extra_retrieved_after.nii.gz").tensor)
    # Each on its own scan's scale of intensities.
    pair = [image.flatten() for image in (shown[0][:, :, 8:], shown[1])]
    pair = [(image - image.mean()) / image.std() for image in pair]
    assert torch.allclose(*pair, atol=1e-4)


def test_a_run_stopped_between_its_stages_ends_as_an_unbroken_one(slices, tmp_path, monkeypatch, capsys):
    """Autoencoder and denoiser are trained one after the other; the order of cases is that of the steps."""
    table, run = slices
    again = ["fit", "postop", "--data", str(table), "--out", str(tmp_path / "run"), *SHORT]
    step = Postop.training_step

    def stops(self, batch, optimizers, backward, generator, number=0):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, batch, optimizers, backward, generator, number)

    with monkeypatch.context() as patch:
        patch.setattr(Postop, "training_step", stops)
        handler = signal.getsignal(signal.SIGINT)
        assert main(again) == 130
        signal.signal(signal.SIGINT, handler)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert main(again) == 0
    weights = [load_weights(folder / "model.safetensors") for folder in (run, tmp_path / "run")]
    assert all(torch.equal(part, weights[1][name]) for name, part in weights[0].items())


def test_nobody_is_shown_their_own_outcome(slices, tmp_path):
    """A scan of the bank itself, though nobody says whose it is."""
    table, run = slices
    bank = Bank(run / "bank")
    own = next(iter(bank))
    home = table.parent / own.id
    out, given = tmp_path / "own", [str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz")]
    assert main(["predict", str(run), *given, "--out", str(out)]) == 0
    assert load_json(out / "trace.json")["extra_tables"]["retrieved cases"][0]["patient"] != own.patient
    named = ["--patient", own.patient, "--case", own.id]
    assert main(["predict", str(run), *given, "--out", str(out), *named]) == 2


def test_random_ranks_are_different_patients(slices, tmp_path):
    table, run = slices
    home, seen = table.parent / "case0011", set()
    image = read_image(home / "source.nii.gz")
    predictor = load(run, sampling={"strategy": "random"})
    for rank in range(4):
        asked = Asked(rank=rank)
        trace = predictor.predict(image, mask=read_labels(home / "source_mask.nii.gz"), asked=asked)
        seen.add(trace.extras["retrieved cases"][0]["patient"])
    assert len(seen) == 4


def test_sampling_may_be_other_than_in_training(slices, tmp_path, capsys):
    table, run = slices
    home = table.parent / "case0011"
    given = ["predict", str(run), str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz")]
    images = []
    for steps in (2, 5):
        out = tmp_path / f"{steps}"
        assert main([*given, "--out", str(out), "--set", f"solver_steps={steps}"]) == 0
        images.append(read(out / "prediction.nii.gz").tensor)
    assert not torch.equal(*images)
    for words, reason in [
        (["features=[8,8]"], "cannot be sampled with another 'features'; expected one of strategy"),
        (["solver_steps=many"], "solver_steps is 'many'; expected a value as 2"),
        (["solver_steps=0"], "solver_steps must lie between 1 and 1000"),
        (["solver_steps"], "expected an option of sampling"),
    ]:
        assert main([*given, "--out", str(tmp_path / "no"), "--set", *words]) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_another_sequence_by_its_column(slices, tmp_path, capsys):
    table, _ = slices
    lines = table.read_text().splitlines()
    header = lines[0].split(",")
    place = header.index("source")
    header[place] = "t1"
    other, run = table.with_name("sequences.csv"), tmp_path / "run"
    # What is called the source is nobody's.
    rows = [",".join([*line.split(","), line.split(",")[header.index("target")]]) for line in lines[1:]]
    other.write_text("\n".join([",".join([*header, "source"]), *rows]) + "\n")
    command = ["fit", "postop", "--data", str(other), "--out", str(run), *SHORT, "--columns.source", "t1"]
    assert main(command) == 0
    assert next(iter(Bank(run / "bank"))).files["source"].name == "source.nii.gz"
    assert main(["evaluate", str(run), "--data", str(other), "--out", str(tmp_path / "tables"), "--cases", "1"]) == 0
    (trace,) = (tmp_path / "tables" / "cases").iterdir()
    assert torch.equal(Trace.load(trace).source.tensor, read(table.parent / trace.name / "source.nii.gz").tensor)
    capsys.readouterr()
    assert main([*command[:-1], "t2", "--out", str(tmp_path / "none")]) == 2
    assert "has no column 't2', to be its source" in capsys.readouterr().err


def test_the_bank_of_a_run_that_still_learns_stays(slices, tmp_path, capsys):
    table, run = slices
    learning = tmp_path / "learning"
    shutil.copytree(run, learning)
    (learning / "model.safetensors").unlink()
    for words in (["add", str(table)], ["remove", "case0003"]):
        assert main(["bank", *words, "--bank", str(learning / "bank")]) == 2
        assert "is the bank of a run that is not finished" in capsys.readouterr().err


def test_a_patient_on_both_sides_is_said(slices, tmp_path, capsys):
    table, _ = slices
    lines = table.read_text().splitlines()
    place = lines[0].split(",").index("split")
    split = [line.split(",")[place] for line in lines[1:]]
    # The last case of test is a patient who is trained on.
    names = [f"p{number}" if name != "test" else "p0" for number, name in enumerate(split)]
    other = table.with_name("patients.csv")
    rows = [f"{line},{name}" for line, name in zip(lines[1:], names, strict=True)]
    other.write_text("\n".join([lines[0] + ",patient", *rows]) + "\n")
    assert main(["fit", "postop", "--data", str(other), "--out", str(tmp_path / "run"), *SHORT]) == 0
    assert "p0 of the column 'patient' stand in train and in test" in " ".join(capsys.readouterr().out.split())


def test_smaller_images_are_padded_to_the_frame(slices, monkeypatch):
    table, run = slices
    home, predictor, seen = table.parent / "case0011", load(run), []
    infer = predictor.method.infer
    monkeypatch.setattr(
        predictor.method,
        "infer",
        lambda batch, generator: seen.append(batch["source"].shape) or infer(batch, generator),
    )
    image, mask = read_image(home / "source.nii.gz"), read_labels(home / "source_mask.nii.gz")
    part = image.grid.cropped((4, 4), (40, 40))
    small, inside = (resample(volume, part, mode) for volume, mode in ((image, "linear"), (mask, "label")))
    trace = predictor.predict(small, mask=inside)
    assert trace.image.tensor.shape[2:] == (40, 40)
    assert seen[0][2:] == predictor.frame.shape == (48, 48)


def test_a_plan_in_the_wrong_place_is_said(tmp_path, capsys):
    table = write_phantom("surgery", 6, 48, tmp_path / "data")
    home, run = table.parent / "case0005", tmp_path / "run"
    assert main(["fit", "postop", "--data", str(table), "--out", str(run), *SHORT]) == 0
    mask = read_labels(home / "source_mask.nii.gz")
    corner, everything = torch.zeros_like(mask.tensor), torch.ones_like(mask.tensor)
    corner[..., :4, :4] = 1
    given = ["predict", str(run), str(home / "source.nii.gz"), "--mask", str(home / "source_mask.nii.gz")]
    for plan, said in ((corner, "touches nothing of the tumour"), (everything, "times as large as the tumour")):
        write_labels(mask.with_tensor(plan), tmp_path / "plan.nii.gz")
        assert main([*given, "--resection", str(tmp_path / "plan.nii.gz"), "--out", str(tmp_path / "trace")]) == 0
        assert said in " ".join(capsys.readouterr().out.split())
    assert load_json(tmp_path / "trace" / "trace.json")["said"]["mask"] == str(home / "source_mask.nii.gz")
    assert main([*given, "--cases", "3", "--samples", "2", "--out", str(tmp_path / "few")]) == 2
    assert "drawn once or oftener; got --samples 2" in capsys.readouterr().err


def test_overlaps_are_those_of_a_query(slices, tmp_path):
    table, run = slices
    home, bank = table.parent / "case0011", Bank(run / "bank")
    mask = read_labels(home / "source_mask.nii.gz")
    wanted = bank.query(bank.manifest.space.pack(mask), 1)[0].iou
    # Seen on a coarser lattice than the masks are compared on.
    predictor = load(run)
    coarse = replace(predictor, frame=replace(predictor.frame, spacing=(8.0, 8.0)))
    trace = coarse.predict(read_image(home / "source.nii.gz"), mask=mask)
    assert trace.extras["retrieved cases"][0]["iou"] == pytest.approx(wanted, abs=1e-4)
