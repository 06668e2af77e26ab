"""The Plasticine bench: its rows run end to end, and its judge finds what is there."""

import numpy as np
import pytest
import torch

from whence.bench import plasticine
from whence.bench.follow import SHOWN
from whence.bench.segmenter import distances, segmenter
from whence.data import read_pairs
from whence.data.phantom import write_phantom
from whence.io import read, read_labels
from whence.metrics import label_overlap


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_rows_are_many_and_named_once():
    names = [row.name for row in plasticine.rows(False)]
    assert len(set(names)) == len(names) == 2 * (len(plasticine.KINDS) + sum(map(len, plasticine.CURVES.values())))
    assert {row.settings["steps"] for row in plasticine.rows(True)} == {10}


def cells_of(name, data, tmp_path):
    (row,) = (row for row in plasticine.rows(True) if row.name == name)
    return plasticine.measure(row, data, tmp_path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("OCT: the source as it is", set()),
        ("brain: the partner by the true field", set()),
        ("OCT: Pix2Pix, on pairs", {"time [s]", "memory [MiB]"}),
        ("OCT: RegGAN", set()),
        ("brain: Plasticine, true labels", {"time [s]", "memory [MiB]"}),
        ("brain: Plasticine, 5 solver steps of DPM-Solver++", {"labels given"}),
        ("OCT: diffusion without the module", {"labels given", "time [s]", "memory [MiB]"}),
    ],
)
def test_a_row_runs(data, tmp_path, name, more):
    cells = cells_of(name, data, tmp_path)
    assert set(cells) == {*SHOWN, "Frechet", "kernel"} | more
    assert cells["folded share"].startswith("0.000000")
    if "true field" in name:
        assert float(cells["field error [mm]"].split()[0]) == 0
        assert float(cells["SSIM with the partner"].split()[0]) == 1
    if "as it is" in name:
        # Nothing moved: carried forth and carried back are one comparison.
        assert cells["trace Dice"] == cells["downstream Dice"]


def test_the_targets_own_images_lie_nearest_to_themselves(data, tmp_path):
    own, other = (cells_of(f"OCT: the {name}", data, tmp_path) for name in ("target's own images", "source as it is"))
    assert set(own) == {"Frechet", "kernel"}
    assert float(own["Frechet"]) < float(other["Frechet"])


def test_a_baseline_is_not_shown_the_partner(data, tmp_path, monkeypatch):
    """RegGAN's own answer looks at the target: here it is asked for its translation alone."""
    asked = []
    monkeypatch.setattr(plasticine, "predict_row", lambda *given: asked.append(given))
    cells_of("OCT: RegGAN", data, tmp_path)
    assert not asked


def test_the_segmenter_learns_its_domain_and_is_kept(tmp_path):
    table = read_pairs(write_phantom("domains", 24, 48, tmp_path / "oct", anatomy="oct"), columns=("source",))
    labels = [int(label) for label in table.label_names]
    kept = tmp_path / "segmenter.pt"
    train = table.split("train").domain("target")
    judge = segmenter(train, labels, kept, steps=60, batch=4)
    row = next(iter(table.split("test").domain("source")))
    truth = read_labels(row.path("target_labels"))

    def dice(found):
        return np.mean([figures[0] for figures in label_overlap(found, truth, labels).values()])

    found = judge.segment(read(row.path("target")))
    # Eight layers a few voxels thick after 60 steps; an untrained one finds next to nothing.
    assert dice(found) > 0.4
    again = segmenter(train, labels, kept, steps=60)
    assert torch.equal(again.segment(read(row.path("target"))).tensor, found.tensor)


def test_distances_of_a_set_to_itself_and_to_a_shifted_one():
    features = torch.randn((64, 3), generator=torch.Generator().manual_seed(0))
    apart = distances(features, features + torch.tensor([1.0, 0.0, 0.0]))
    # Gaussians of one covariance: the squared distance of their means.
    assert apart["frechet"] == pytest.approx(1.0, abs=1e-4)
    assert abs(distances(features, features)["frechet"]) < 1e-4
    assert distances(features, features)["kernel"] < apart["kernel"]
