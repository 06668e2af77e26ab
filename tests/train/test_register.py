"""`whence register`: a trace folder that ITK reads, a cohort that resumes, mistakes in one sentence."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "registration"))
from made import affine, distance, head, motion, points_inside

from whence import io
from whence.cli import main
from whence.data.pairs import write_pairs
from whence.errors import InputError
from whence.field import warp
from whence.registration.inverse import total_inverse
from whence.space import Volume, to_frame
from whence.trace import Trace
from whence.train.similarity import find_similarity


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Fixed and moving image of 2D, and the points that correspond."""
    folder = tmp_path_factory.mktemp("pair")
    fixed = head((48, 44), 2.0)
    bend, _ = motion(fixed.grid, 2)
    matrix = affine(2, 4.0, 1.03, (3.0, -2.0))
    moving = warp(fixed, total_inverse(matrix, bend, fixed.grid.cropped((-5, -5), (58, 54))), outside="zeros")
    io.write(fixed, folder / "fixed.nii.gz")
    io.write(moving, folder / "moving.nii.gz")
    points = points_inside(fixed)
    return folder, points, bend(points) @ matrix[:2, :2].T + matrix[:2, 2]


@pytest.fixture(scope="module")
def registered(pair):
    folder, points, truth = pair
    given = [str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz"), "--out", str(folder / "out")]
    assert main(["register", *given]) == 0
    return folder / "out", points, truth


def test_the_trace_folder(registered):
    out, points, truth = registered
    trace = Trace.load(out)
    assert trace.info["kind"] == "registered"
    assert trace.info["similarity"] == "ncc"
    assert distance(trace.whence(points), truth).mean() < 1.0
    assert distance(trace.whither(trace.whence(points)), points).mean() < 0.1
    assert float((trace.warped_source.tensor - trace.image.tensor).abs().mean()) < 0.03
    record = json.loads((out / "registration.json").read_text())
    assert record["folded"] == 0
    with (out / "energy.csv").open() as file:
        energies = [float(row["energy"]) for row in csv.DictReader(file) if row["stage"] == "2 mm"]
    assert energies[-1] < energies[0]


def test_itk_reads_affine_and_fields(registered):
    out, points, _ = registered
    trace = Trace.load(out)
    linear = sitk.ReadTransform(str(out / "affine.tfm"))
    matrix = io.read_affine(out / "affine.tfm")
    moved = [linear.TransformPoint(p.tolist()) for p in to_frame(points, "RAS", "LPS")]
    assert np.allclose(to_frame(np.array(moved), "LPS", "RAS"), points @ matrix[:2, :2].T + matrix[:2, 2], atol=1e-6)
    # The affine is most of the map.
    assert distance(points @ matrix[:2, :2].T + matrix[:2, 2], trace.whence(points)).mean() < 4.0
    image = sitk.ReadImage(str(out / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(image)
    moved = [transform.TransformPoint(p.tolist()) for p in to_frame(points, "RAS", "LPS")]
    assert np.allclose(to_frame(np.array(moved), "LPS", "RAS"), trace.whence(points), atol=1e-3)


def test_an_affine_file_in_three_dimensions(tmp_path):
    matrix = affine(3)
    for name in ("a.tfm", "a.txt"):
        io.write_affine(matrix, tmp_path / name)
        assert np.allclose(io.read_affine(tmp_path / name), matrix)
    with pytest.raises(InputError, match="extension"):
        io.write_affine(matrix, tmp_path / "a.h5")


def test_a_start_that_cannot_be_undone(pair, tmp_path, capsys):
    folder, *_ = pair
    io.write_affine(np.diag([1.0, 1e-9, 1.0]), tmp_path / "flat.tfm")
    given = ["register", str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz"), "--out", str(tmp_path / "out")]
    assert main([*given, "--start", str(tmp_path / "flat.tfm")]) == 2
    assert "expected an affine that can be undone" in capsys.readouterr().err


def test_an_output_that_cannot_be_is_refused_before_the_work(pair, cohort, tmp_path, capsys):
    folder, *_ = pair
    (tmp_path / "file").write_text("no folder")
    images = [str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")]
    for given in (images, [str(cohort)]):
        assert main(["register", *given, "--out", str(tmp_path / "file")]) == 2
        assert "is a file; expected a folder" in capsys.readouterr().err


def test_masks_a_start_and_other_options(pair, tmp_path, registered):
    folder, points, truth = pair
    fixed = io.read(folder / "fixed.nii.gz")
    io.write_labels(Volume((fixed.tensor > 0.2).to(torch.uint8), fixed.grid), tmp_path / "mask.nii.gz")
    given = ["register", str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz"), "--out", str(tmp_path / "out")]
    options = ["--mask", str(tmp_path / "mask.nii.gz"), "--start", str(registered[0] / "affine.tfm")]
    options += ["--transform=svf", "--similarity=mi", "--preset=accurate", "--levels=[2, 1]", "--iterations=[20, 20]"]
    assert main([*given, *options]) == 0
    trace = Trace.load(tmp_path / "out")
    assert distance(trace.whence(points), truth).mean() < 1.5
    assert np.allclose(io.read_affine(tmp_path / "out" / "affine.tfm"), io.read_affine(registered[0] / "affine.tfm"))


@pytest.fixture
def cohort(pair, tmp_path):
    """A table of three pairs, the second of which is broken."""
    folder, *_ = pair
    flat = io.read(folder / "moving.nii.gz")
    io.write(flat.with_tensor(torch.zeros_like(flat.tensor)), tmp_path / "flat.nii.gz")
    good = folder / "moving.nii.gz"
    sources = {"a": good, "b": tmp_path / "flat.nii.gz", "c": good}
    both = {"split": "test", "target": folder / "fixed.nii.gz"}
    rows = [{"id": name, "source": source, **both} for name, source in sources.items()]
    return write_pairs(tmp_path / "pairs.csv", rows)


def states(out):
    with (out / "registrations.csv").open() as file:
        return {row["id"]: (row["state"], row["error"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cohort_reports_the_bad_pair_and_takes_up_where_it_was(cohort, tmp_path, capsys, jobs):
    out = tmp_path / "out"
    given = ["register", str(cohort), "--out", str(out), "--jobs", str(jobs), "--iterations=[5, 5, 5, 5]"]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert "1 of 3 pairs failed" in said
    assert "flat.nii.gz is constant" in said
    found = states(out)
    assert [found[name][0] for name in "abc"] == ["done", "failed", "done"]
    assert "constant" in found["b"][1]
    before = (out / "a" / "trace.json").stat().st_mtime_ns
    # The image is mended: only its pair is left to do.
    io.write(io.read(out / "a" / "source.nii.gz"), tmp_path / "flat.nii.gz")
    assert main(given) == 0
    assert [state for state, _ in states(out).values()] == ["done"] * 3
    assert (out / "a" / "trace.json").stat().st_mtime_ns == before
    # What no row could be done with costs none of them its record.
    for wrong in ("--similarity=lncc", "--window=4", "--bins=2", "--affine_similarity=auto"):
        assert main([*given, wrong]) == 2
    assert [state for state, _ in states(out).values()] == ["done"] * 3
    # Other options are another registration, and an old page does not tell of it.
    (out / "report.html").write_text("old")
    assert main([*given, "--transform=svf"]) == 0
    assert (out / "a" / "trace.json").stat().st_mtime_ns > before
    assert not (out / "report.html").exists()


def test_a_row_without_its_file_stops_no_other(cohort, tmp_path, capsys):
    lines = cohort.read_text().splitlines()
    lines[2] = lines[2].replace("flat.nii.gz", "nowhere.nii.gz")
    cohort.write_text("\n".join(lines) + "\n")
    given = ["register", str(cohort), "--out", str(tmp_path / "out"), "--iterations=[2, 2, 2, 2]"]
    assert main(given) == 2
    assert "1 of 3 pairs failed" in capsys.readouterr().err
    found = states(tmp_path / "out")
    assert [found[name][0] for name in "acb"] == ["done", "done", "failed"]
    assert "nowhere.nii.gz" in found["b"][1]


@pytest.mark.slow
def test_a_cohort_on_a_dask_cluster(cohort, tmp_path, capsys, monkeypatch):
    """Its workers stand elsewhere; the folder that is asked for lies here."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        monkeypatch.chdir(tmp_path)
        given = ["register", str(cohort), "--out", "out", "--iterations=[5, 5, 5, 5]"]
        assert main([*given, "--scheduler", cluster.scheduler_address]) == 2
    assert "1 of 3 pairs failed" in capsys.readouterr().err
    assert [state for state, _ in states(tmp_path / "out").values()] == ["done", "failed", "done"]


def test_without_dask_the_install_line(cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    assert main(["register", str(cohort), "--out", str(tmp_path / "out"), "--scheduler", "tcp://localhost:1"]) == 2
    assert "pip install 'whence[cluster]'" in capsys.readouterr().err


MISTAKES = [
    (["{fixed}", "--out", "{out}"], "missing the moving image"),
    (["{fixed}", "nowhere.nii.gz", "--out", "{out}"], "nowhere.nii.gz: no such file"),
    (["{fixed}", "{flat}", "--out", "{out}"], "is constant"),
    (["{fixed}", "{volume}", "--out", "{out}"], "is 3D; expected 2D"),
    (["{fixed}", "{moving}", "--out", "{out}", "--mask", "{large}"], "lies on"),
    (["{fixed}", "{moving}", "--out", "{out}", "--mask", "{empty}"], "is empty"),
    (["{fixed}", "{moving}", "--out", "{out}", "--similarity", "lncc"], "unknown similarity 'lncc'"),
    (["{fixed}", "{moving}", "--out", "{out}", "--preset", "slow"], "unknown preset 'slow'"),
    (["{fixed}", "{moving}", "--out", "{out}", "--transform", "bspline"], "unknown transform 'bspline'"),
    (["{fixed}", "{moving}", "--out", "{out}", "--window", "4"], "window"),
    (["{fixed}", "{moving}", "--out", "{out}", "--levels", "[2, 1]"], "iterations"),
    (["{fixed}", "{moving}", "--out", "{out}", "--step", "-1"], "step is above 0"),
    (["{fixed}", "{moving}", "--out", "{out}", "--start", "{fixed}"], "expected a 2D affine"),
    (["{fixed}", "{moving}", "--out", "{out}", "--jobs", "2"], "pairs.csv"),
    (["{table}", "{moving}", "--out", "{out}"], "names its images"),
    (["{table}", "--out", "{out}", "--jobs", "0"], "--jobs"),
]


@pytest.mark.parametrize(("given", "said"), MISTAKES)
def test_mistakes_are_told_in_one_sentence(pair, cohort, tmp_path, capsys, given, said):
    folder, *_ = pair
    fixed = io.read(folder / "fixed.nii.gz")
    io.write_labels(
        Volume(torch.zeros(1, 1, *fixed.grid.shape, dtype=torch.uint8), fixed.grid), tmp_path / "empty.nii.gz"
    )
    io.write(head((8, 9, 7), 2.0), tmp_path / "volume.nii.gz")
    large = torch.ones(1, 1, 50, 50, dtype=torch.uint8)
    io.write_labels(Volume(large, fixed.grid.cropped((0, 0), (50, 50))), tmp_path / "large.nii.gz")
    names = {
        **{name: folder / f"{name}.nii.gz" for name in ("fixed", "moving")},
        **{name: tmp_path / f"{name}.nii.gz" for name in ("flat", "volume", "empty", "large")},
        "table": cohort,
        "out": tmp_path / "out",
    }
    assert main(["register", *(word.format(**names) for word in given)]) == 2
    captured = capsys.readouterr().err.strip().splitlines()[-1]
    assert captured.startswith("whence: ")
    assert said in captured
    assert not (tmp_path / "out" / "trace.json").exists()


def test_similarities_by_name():
    image = torch.rand(1, 1, 20, 20) * 2 - 1
    for name in ("ncc", "nmi", "mi", "mind", "mse"):
        compare = find_similarity(name, window=None, bins=None)
        assert float(compare(image, image)) < float(compare(image, image.roll(5, dims=2)))
    with pytest.raises(InputError, match="odd"):
        find_similarity("ncc", window=4)
    with pytest.raises(InputError, match="bins"):
        find_similarity("mi", bins=2)
