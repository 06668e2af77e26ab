"""Structure maps of labels, and Plasticine with them: what they tell apart, what it learns from, what it asks for."""

import pytest
import torch

from whence import kernels
from whence.cli import main
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.errors import InputError
from whence.io import read, read_labels
from whence.models.plasticine import Plasticine, PlasticineConfig
from whence.models.structure import Structure, edges, label_maps
from whence.train.run import load
from whence.train.samples import frame_of, samples_of, training_table
from whence.train.settings import TrainConfig

pytest.importorskip("diffusers")
SMALL = {"features": (8, 16), "spatial_features": (8, 16), "blocks": 1, "attention": 1, "solver_steps": 2}
OPTIONS = {"steps": 2, "batch_size": 2, "threads": 1, "accelerator": "cpu", "solver_steps": 2, "blocks": 1}
OPTIONS |= {"features": "[8,16]", "spatial_features": "[8,16]", "attention": 1, "structure": "labels"}
GIVEN = [f"--{name}={value}" for name, value in OPTIONS.items()]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_phantom("domains", 16, 32, tmp_path_factory.mktemp("domains"), anatomy="heart")


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert main(["fit", "plasticine", "--data", str(table), "--out", str(out), *GIVEN]) == 0
    return out


def test_each_of_eight_labels_has_a_channel():
    labels = torch.arange(16).reshape(1, 1, 4, 4)
    maps = label_maps(labels)[0, 1:].flatten(1).T
    assert torch.equal(maps[1:9], torch.eye(8))
    assert not maps[0].any()
    assert torch.equal(maps[9:], maps[1:8])
    assert torch.equal(label_maps(labels.float()), label_maps(labels.to(torch.int16)))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_borders_by_hand(shape):
    labels = torch.zeros(1, 1, *shape)
    labels[:, :, 4:] = 7
    border = label_maps(labels)[:, 0]
    expected = torch.zeros(shape)
    expected[3:5] = 1
    assert torch.equal(border[0], expected)


def test_names_are_joined():
    image, labels = torch.rand(2, 1, 16, 16) * 2 - 1, torch.randint(0, 4, (2, 1, 16, 16))
    both = Structure("edges+labels", 2)
    assert (both.channels, both.of_image, both.labelled) == (11, 2, True)
    assert torch.equal(both(image, labels), torch.cat([edges(image), label_maps(labels)], dim=1))
    assert torch.equal(both.image(image), edges(image))
    assert Structure("labels", 2).image(image).shape == (2, 0, 16, 16)
    with pytest.raises(ValueError, match="also of labels; got none"):
        both(image)


def test_samples_hold_the_labels_of_their_images(table):
    rows = training_table(table, Plasticine, labels=True).split("train")
    frame = frame_of(rows, TrainConfig())
    torch.manual_seed(0)
    net = Plasticine(PlasticineConfig(**SMALL, structure="labels"), 2, 1, 1)
    sample = samples_of(rows, frame, net)[3]
    sources = samples_of(rows, frame, net).sources
    row = next(row for row in rows if row.id == sources.ids[3])
    assert torch.equal(sample["source_labels"][0], read_labels(row.path("source_labels")).tensor[0, 0].float())
    for name in ("source", "target"):
        assert torch.equal(sample[f"{name}_structure"], label_maps(sample[f"{name}_labels"][None])[0])
    assert not torch.equal(sample["source_labels"], sample["target_labels"])


@pytest.mark.parametrize("shape", [(32, 24), (16, 16, 24)])
def test_own_labels_move_with_their_image(shape):
    torch.manual_seed(0)
    config = PlasticineConfig(**SMALL, structure="labels", scales=(2, 1), given=0.0, translation=0.5)
    net = Plasticine(config, len(shape), 1, 1)
    labels = (kernels.gaussian(torch.randn(2, 1, *shape), 3.0) > 0).float()
    batch = {"source": labels * 2 - 1, "target": labels * 2 - 1, "source_labels": labels, "target_labels": labels}
    batch |= net.derive({name: batch[name] for name in batch})
    generator = torch.Generator().manual_seed(0)
    away, true = net._maps(batch["target"], generator)
    structure, _, _ = net._source(batch, away, generator)
    # A label is moved whole: nothing between two.
    assert set(structure.unique().tolist()) == {0.0, 1.0}
    goal = batch["target_structure"]
    left = (kernels.warp(structure, true) - goal)[:, 1:].abs().mean()
    assert float(left) < float((structure - goal)[:, 1:].abs().mean())
    report = net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), torch.Generator().manual_seed(1))
    assert bool(torch.isfinite(report["loss"]))


def test_a_prediction_sees_the_labels(run, table, tmp_path):
    row = next(iter(read_pairs(table, ("source",)).split("test").domain("source")))
    image, labels = str(row.path("source")), str(row.path("source_labels"))
    assert main(["predict", str(run), image, "--labels", labels, "--out", str(tmp_path / "one")]) == 0
    assert main(["predict", str(run), str(table), "--split", "test", "--out", str(tmp_path / "all")]) == 0
    assert main(["evaluate", str(run), "--data", str(table), "--out", str(tmp_path / "results")]) == 0
    predictor, seen = load(run), read_labels(labels)
    first = predictor.predict(read(image), labels=seen)
    other = predictor.predict(read(image), labels=seen.with_tensor(seen.tensor.flip(3)))
    assert not torch.equal(first.image.tensor, other.image.tensor)
    # Labels of another grid are brought to the image's.
    fine = predictor.predict(read(image), labels=_finer(seen))
    assert float((fine.image.tensor - first.image.tensor).abs().mean()) < 0.2 * float(
        (other.image.tensor - first.image.tensor).abs().mean()
    )


def test_what_lacks_labels_is_refused(run, table, tmp_path, capsys):
    row = next(iter(read_pairs(table, ("source",)).split("test").domain("source")))
    image = str(row.path("source"))
    assert main(["predict", str(run), image, "--out", str(tmp_path / "x")]) == 2
    assert "sees the labels of an image; expected those of" in capsys.readouterr().err
    given = ["--labels", str(row.path("source_labels")), "--out", str(tmp_path / "x")]
    assert main(["predict", str(run), str(table), *given]) == 2
    assert "names its own labels; expected no --labels" in capsys.readouterr().err
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("source_labels")
    cells = lines[3].split(",")
    cells[column] = ""
    (table.parent / "gap.csv").write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:]]) + "\n")
    command = ["fit", "plasticine", "--data", str(table.parent / "gap.csv"), "--out", str(tmp_path / "y"), *GIVEN]
    assert main(command) == 2
    assert "line 4: column 'source_labels' is empty; expected a file" in capsys.readouterr().err
    with pytest.raises(InputError, match="labels of the image are 2D with 1 channel; got 3D"):
        load(run).predict(read(image), labels=_volume_3d())


def _finer(labels):
    from whence.field import resample

    return resample(labels, labels.grid.resampled(tuple(labels.grid.spacing / 2)), mode="label")


def _volume_3d():
    from whence.space import Grid, Volume

    return Volume(torch.zeros(1, 1, 4, 4, 4, dtype=torch.int32), Grid.regular((4, 4, 4)))


def test_labels_that_lie_elsewhere_are_refused(run, table):
    from whence.field import resample
    from whence.space import Grid, Volume

    row = next(iter(read_pairs(table, ("source",)).split("test").domain("source")))
    predictor, seen = load(run), read_labels(row.path("source_labels"))
    far = seen.grid.affine.copy()
    far[:2, 2] += 1000.0
    with pytest.raises(InputError, match="none of the labels lies within the image"):
        predictor.predict(read(row.path("source")), labels=Volume(seen.tensor, Grid(seen.grid.shape, far)))
    # A file that ends within the image says nothing beyond.
    part = Volume(torch.ones_like(seen.tensor[:, :, :8, :8]), Grid((8, 8), seen.grid.affine))
    found = predictor.frame.enter_labels(part, seen.grid)
    assert int(found.sum()) == 64
    assert resample(part, seen.grid, mode="label").tensor.sum() > 64


def test_labels_for_a_run_that_sees_none(trained, surgery, tmp_path, capsys):
    row = read_pairs(surgery).rows[0]
    image = str(row.path("source"))
    assert main(["predict", str(trained), image, "--labels", image, "--out", str(tmp_path / "x")]) == 2
    assert "is a tracetrans that sees no labels; expected no --labels" in capsys.readouterr().err
