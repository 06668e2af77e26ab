"""The readers of LUMIERE and BraTS-Reg on made-up folders of their layouts."""

import numpy as np
import pytest
import torch

from whence.cli import main
from whence.data import read_pairs
from whence.data.readers import brats_reg, lumiere
from whence.errors import InputError
from whence.io import read, read_labels, read_points, write, write_labels
from whence.space import Grid, Volume

GRID = Grid.regular((12, 14, 10), 1.0)
RATING = "Rating (according to RANO, PD: Progressive disease, Pre-Op: Pre-Operative, Post-Op: Post-Operative)"


def image(value):
    random = torch.rand((1, 1, *GRID.shape), generator=torch.Generator().manual_seed(value))
    return Volume(100 * value + random, GRID)


def labels(*values):
    tensor = torch.zeros(1, 1, *GRID.shape, dtype=torch.uint8)
    for place, value in enumerate(values, start=2):
        tensor[0, 0, place, 3:6, 4:6] = value
    return Volume(tensor, GRID)


@pytest.fixture
def lumiere_folder(tmp_path):
    """Three patients: one with a scan between, one whose suffixes run the other way, one without a scan after."""
    folder, value = tmp_path / "lumiere", 0
    rated = {
        "Patient-001": {"week-000": "Pre-Op", "week-002": "Post-Op", "week-010": "PD", "week-040": "Post-Op"},
        "Patient-020": {"week-000": "Post-Op", "week-000-1": "Pre-Op "},
        "Patient-030": {"week-000": "Pre-Op"},
    }
    lines = [f'Patient,Date,LessThan3Months,NonMeasurableLesions,"{RATING}"']
    for patient, weeks in rated.items():
        for week, rating in weeks.items():
            value += 1
            home = folder / "Imaging" / patient / week / lumiere.ATLAS
            for sequence in lumiere.SEQUENCES:
                write(image(value), home / "skull_strip" / f"{sequence}_skull_strip.nii.gz")
            empty = patient == "Patient-020" and rating == "Post-Op"
            # After surgery some still enhances, and beside it a little more is dark.
            found = labels(1, 2, 3) if "Pre" in rating else labels() if empty else labels(0, 1, 2)
            write_labels(found, home / "segmentation" / "seg_mask.nii.gz")
            lines.append(f'{patient},{week},,,"{rating}"')
    (folder / "LUMIERE-ExpertRating-v202211.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_lumiere(lumiere_folder, tmp_path):
    table = lumiere.convert(lumiere_folder, tmp_path / "out", sequence="ct1")
    rows = {row.id: row for row in read_pairs(table, ("source", "target", "source_mask", "target_cavity"))}
    assert {name: (row.conditions["week_before"], row.conditions["week_after"]) for name, row in rows.items()} == {
        "Patient-001": ("week-000", "week-002"),
        "Patient-020": ("week-000-1", "week-000"),
    }
    first = rows["Patient-001"]
    assert first.files["source"].name == "ct1_skull_strip.nii.gz"
    assert float(read(first.path("source")).tensor.min()) >= 100
    core = read_labels(first.path("source_mask")).tensor[0, 0]
    # Enhancing tumour and necrosis, and no oedema.
    assert torch.equal(core, (labels(1, 1).tensor[0, 0] != 0).to(core.dtype))
    cavity = read_labels(first.path("target_cavity")).tensor[0, 0]
    assert torch.equal(cavity, (labels(1, 0, 1).tensor[0, 0] != 0).to(cavity.dtype))
    # Nothing found after surgery: the core of before.
    assert torch.equal(read_labels(rows["Patient-020"].path("target_cavity")).tensor[0, 0], core)
    assert [row.split for row in rows.values()] == ["train", "test"]
    assert main(["pairs", "lumiere", str(lumiere_folder), "--out", str(tmp_path / "again"), "--sequence", "t2"]) == 0


def test_lumiere_elsewhere(lumiere_folder, tmp_path):
    out = tmp_path / "out"
    for folder, options, reason in [
        (tmp_path, {}, "expected LUMIERE-ExpertRating"),
        (lumiere_folder, {"sequence": "pet"}, "unknown sequence 'pet'"),
        (lumiere_folder, {"test": ["Patient-030"]}, "no patient 'Patient-030' with both weeks"),
    ]:
        with pytest.raises(InputError, match=reason):
            lumiere.convert(folder, out, **options)
    ratings = lumiere_folder / "LUMIERE-ExpertRating-v202211.csv"
    ratings.write_text("Patient,Week\n")
    with pytest.raises(InputError, match=r"expected Patient, Date and Rating"):
        lumiere.convert(lumiere_folder, out)
    assert not out.exists()


@pytest.fixture
def brats_folder(tmp_path):
    folder = tmp_path / "brats"
    # As published: LPS, the first voxel at (0, -239, 0), which is RAS (0, 239, 0) with two axes running back.
    grid = Grid((240, 240, 20), np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239.0], [0, 0, 1.0, 0], [0, 0, 0, 1]]))
    for patient, date in (("001", "0106"), ("002", "0430")):
        home = folder / f"BraTSReg_{patient}"
        for number, begin in enumerate((f"BraTSReg_{patient}_00_0000", f"BraTSReg_{patient}_01_{date}")):
            tensor = torch.zeros(1, 1, *grid.shape)
            tensor[0, 0, 100 + number, 150, 7] = 9.0
            for sequence in brats_reg.SEQUENCES:
                write(Volume(tensor, grid), home / f"{begin}_{sequence}.nii.gz")
            (home / f"{begin}_landmarks.csv").write_text(f"Landmark, X, Y, Z\n1, {100 + number}, -89, 7\n")
    return folder


def test_brats_reg(brats_folder, tmp_path):
    """A landmark lies on the voxel that it is of."""
    table = brats_reg.convert(brats_folder, tmp_path / "out", sequence="t1")
    first, second = read_pairs(table)
    assert (first.conditions["days"], second.conditions["days"]) == (106, 430)
    assert (first.split, second.split, first.conditions["patient"]) == ("train", "test", "BraTSReg_001")
    for side in ("source", "target"):
        shown, points = read(first.path(side)), read_points(first.path(f"{side}_points"))
        voxel = np.round(shown.grid.to_voxel(points.coordinates[0])).astype(int)
        assert float(shown.tensor[(0, 0, *voxel)]) == 9.0
    assert main(["pairs", "brats-reg", str(brats_folder), "--out", str(tmp_path / "again")]) == 0


def test_brats_reg_elsewhere(brats_folder, tmp_path, capsys):
    with pytest.raises(InputError, match="expected BraTSReg_NNN"):
        brats_reg.convert(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="no patient 'BraTSReg_009'"):
        brats_reg.convert(brats_folder, tmp_path / "out", ["BraTSReg_009"])
    with pytest.raises(InputError, match="unknown sequence 'ct1'"):
        brats_reg.convert(brats_folder, tmp_path / "out", sequence="ct1")
    (brats_folder / "BraTSReg_001" / "BraTSReg_001_00_0000_landmarks.csv").write_text("Landmark,X,Y\n1,2,3\n")
    with pytest.raises(InputError, match="holds no landmarks"):
        brats_reg.convert(brats_folder, tmp_path / "out")
    assert main(["pairs", "open-ms", str(tmp_path), "--out", str(tmp_path / "out"), "--sequence", "t1"]) == 2
    assert "has one sequence" in capsys.readouterr().err
