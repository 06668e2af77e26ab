"""Open MS's layout: three modalities of one head brought together by their affines, parted by known fields."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence import io
from whence.data import read_pairs
from whence.data.readers.open_ms import convert
from whence.errors import InputError
from whence.field import compose, warp
from whence.space import Grid, Volume


def head(grid, level):
    """An ellipsoid with structure, brightest at ``level``, at world positions: the same head on any grid."""
    here = np.moveaxis(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")), 0, -1)
    x, y, z = np.moveaxis(grid.to_world(here.astype(float)), -1, 0)
    inside = 1 / (1 + np.exp((np.sqrt((x / 50) ** 2 + (y / 60) ** 2 + (z / 60) ** 2) - 1) * 20))
    waves = np.sin(x / 7) * np.cos(y / 9) + np.sin(z / 11)
    return Volume(torch.from_numpy((inside * (200 + level * 40 * waves)).astype(np.float32))[None, None], grid)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("open_ms")
    shift = np.eye(4)
    shift[:3, 3] = (5.0, -3.0, 0.0)
    grid = Grid.regular((48, 56, 24), (3.0, 3.0, 5.0), centred=True)
    for patient in ("patient01", "patient02"):
        place = home / patient
        place.mkdir()
        io.write(head(grid, 1.0), place / "study1_FLAIR.nii.gz")
        for name, level in (("T1W", -1.0), ("T2W", 0.5)):
            # Its own space: shifted, so that a point of FLAIR lies at another one there.
            start = 8 if (patient, name) == ("patient02", "T1W") else 0
            own = Grid(grid.shape, shift @ grid.affine).cropped((0, 0, start), (48, 56, 24 - start))
            io.write(Volume(head(grid, level).tensor[..., start:].contiguous(), own), place / f"study1_{name}.nii.gz")
            io.write_affine(shift, place / f"study1_{name}_intrastudy_to_FLAIR.txt")
    (home / "patient01" / "study2_FLAIR.nii.gz").write_bytes(b"")
    (home / "notes").mkdir()
    return home


def test_slices_are_aligned_and_moved_by_what_is_known(folder, tmp_path):
    seen = []
    table = read_pairs(convert(folder, tmp_path, progress=lambda *counts: seen.append(counts)))
    # Without its affines the second study of a patient is none.
    assert seen == [(1, 2), (2, 2)]
    assert {row.split for row in table} == {"train", "val", "test"}
    assert {row.conditions["target_modality"] for row in table} == {"t2", "flair"}
    kept = {(row.conditions["patient"], row.conditions["slice"]): row.split for row in table}
    assert not any(
        kept.get((patient, number + 1), split) != split and "train" in (split, kept.get((patient, number + 1)))
        for (patient, number), split in kept.items()
    )
    lowest = [min(number for patient, number in kept if patient == name) for name in ("patient01", "patient02")]
    # Below, the second patient's T1 shows nothing.
    assert lowest[0] < 8
    assert lowest[1] in (8, 9)
    middle = [row for row in table if row.conditions["slice"] == 12]
    assert len(middle) == 4
    for row in middle:
        images = {name: io.read(row.path(name)) for name in ("source", "target", "counterpart", "registered")}
        forward, backward = (io.read_displacement(row.path(name)) for name in ("displacement", "inverse"))
        mask = io.read_labels(row.path("source_brain")).numpy() > 0
        assert mask.mean() > 0.15
        # Whatever its contrast, the head is where the source has it; the wrong way round they would hardly agree.
        flat = [images[name].numpy()[ndimage.binary_erosion(mask, iterations=5)] for name in ("source", "counterpart")]
        assert abs(np.corrcoef(*flat)[0, 1]) > 0.85
        for still, moved in (("counterpart", "target"), ("source", "registered")):
            assert torch.allclose(warp(images[still], forward).tensor, images[moved].tensor, atol=0.5)
        assert float(forward.magnitude().mean()) > 1
        inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
        assert float(compose(forward, backward).magnitude()[inner].mean()) < 0.1


def test_again_nothing_is_done_and_patients_can_be_held_out(folder, tmp_path):
    convert(folder, tmp_path)
    first = min(tmp_path.glob("patient01*/source_1*.nii.gz"))
    before = first.stat().st_mtime_ns
    table = read_pairs(convert(folder, tmp_path, test=["patient02"]))
    assert first.stat().st_mtime_ns == before
    assert {(row.conditions["patient"], row.split) for row in table} == {("patient01", "train"), ("patient02", "test")}


def test_mistakes(folder, tmp_path):
    with pytest.raises(InputError, match="no patient 'patient09'"):
        convert(folder, tmp_path / "out", test=["patient09"])
    with pytest.raises(InputError, match=r"expected folders with study1_T1W.nii.gz"):
        convert(tmp_path, tmp_path / "out")
