"""The reader of Brain-Tumor-Progression on a made-up patient of its layout."""

import shutil

import numpy as np
import pytest
import torch
from scipy import ndimage

from whence.data import read_pairs, survey
from whence.data.readers import brain_tumor_progression as reader
from whence.errors import InputError
from whence.io import read, read_labels, write, write_labels
from whence.space import Grid, Volume

SHAPE = (40, 36, 10)
GRID = Grid.regular(SHAPE, 1.0)  # as the published headers say


def head(shift=0, seed=0):
    """A head in slices 2 to 8, `shift` voxels to the right."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    inside = (((x - 20 - shift) / 13) ** 2 + ((y - 18) / 15) ** 2 < 1) & (z >= 2) & (z <= 8)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (2, 2, 0.5))
    texture = ndimage.shift(texture, (shift, 0, 0), mode="nearest")
    return Volume(torch.from_numpy((inside * (300 + 800 * texture)).clip(0).astype(np.float32))[None, None], GRID)


def mask(shift=0):
    tensor = torch.zeros(1, 1, *SHAPE, dtype=torch.int32)
    tensor[..., 18 + shift : 24 + shift, 15:20, 4:7] = 1
    return Volume(tensor, GRID)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    for patient in ("01", "02"):
        write(head(0), folder / patient / "Pre_Scan_T1.nii.gz")
        write(head(3), folder / patient / "Post_Scan_T1.nii.gz")
        write_labels(mask(0), folder / patient / "Pre_Mask.nii.gz")
        write_labels(mask(3), folder / patient / "Post_Mask.nii.gz")
    (folder / "notes").mkdir()
    return folder


def test_pairs_of_slices_aligned(layout, tmp_path):
    calls = []
    path = reader.convert(layout, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    table = read_pairs(path)
    assert [row.split for row in table] == ["train"] * (len(table) // 2) + ["test"] * (len(table) // 2)
    assert {row.conditions["slice"] for row in table} == {2, 3, 4, 5, 6, 7, 8}
    assert survey(table).plane == "axial"
    overlap, before = [], []
    for row in table.split("train"):
        volumes = {column: read(row.path(column)) for column in reader.FILES}
        assert len({(v.grid.shape, v.grid.affine.tobytes()) for v in volumes.values()}) == 1
        assert volumes["source"].grid.shape == (40, 36, 1)
        assert volumes["source"].grid.spacing.tolist() == [1, 1, reader.SLICE_MM]
        index = int(row.conditions["slice"])
        original = head(0).tensor[..., index]
        assert torch.equal(volumes["source"].tensor[..., 0], original)
        overlap.append(float((volumes["target"].tensor[..., 0] - original).abs().mean()))
        before.append(float((head(3).tensor[..., index] - original).abs().mean()))
    # The second date was 3 voxels off and is no longer.
    assert np.mean(overlap) < 0.4 * np.mean(before)
    middle = next(row for row in table if row.conditions["slice"] == 5)
    a, b = (read_labels(middle.path(f"{side}_mask")).tensor > 0 for side in ("source", "target"))
    assert float(2 * (a & b).sum() / (a.sum() + b.sum())) > 0.7


def test_finished_patients_are_not_done_again(layout, tmp_path, monkeypatch):
    first = reader.convert(layout, tmp_path / "out", test=["01"]).read_text()
    monkeypatch.setattr(reader, "register_affine", None)
    again = reader.convert(layout, tmp_path / "out", test=["01"]).read_text()
    assert first == again
    assert {row.conditions["patient"] for row in read_pairs(tmp_path / "out" / "pairs.csv").split("test")} == {"01"}


def test_what_is_refused(layout, tmp_path):
    with pytest.raises(InputError, match=r"no patient '9'.*it has 01, 02"):
        reader.convert(layout, tmp_path / "out", test=["9"])
    with pytest.raises(InputError, match="found none"):
        reader.convert(tmp_path, tmp_path / "out")
    shutil.copytree(layout, tmp_path / "broken")
    image = tmp_path / "broken" / "01" / "Pre_Scan_T1.nii.gz"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(InputError, match="Pre_Scan_T1"):
        reader.convert(tmp_path / "broken", tmp_path / "out")
    assert not (tmp_path / "out" / "pairs.csv").exists()
    write(Volume(torch.full((1, 1, *SHAPE), 5.0), GRID), image)
    with pytest.raises(InputError, match=r"Pre_Scan_T1.*constant"):
        reader.convert(tmp_path / "broken", tmp_path / "out")
    write(head(0), image)
    short = Volume(torch.ones(1, 1, 40, 36, 6, dtype=torch.int32), Grid.regular((40, 36, 6)))
    write_labels(short, tmp_path / "broken" / "01" / "Post_Mask.nii.gz")
    with pytest.raises(InputError, match=r"Post_Mask.*another grid"):
        reader.convert(tmp_path / "broken", tmp_path / "out")
