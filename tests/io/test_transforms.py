import nibabel
import numpy as np
import pytest
import torch

from whence import io
from whence.errors import InputError
from whence.field import Displacement
from whence.space import Grid, Volume

FORMATS = (".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".tfm")


def field(shape, seed=0):
    dims = len(shape)
    affine = np.eye(dims + 1)
    affine[:2, :2] = [[0.9 * np.cos(0.2), 1.2 * np.sin(0.2)], [0.9 * np.sin(0.2), -1.2 * np.cos(0.2)]]
    affine[:2, dims] = [50.0, -80.0]
    vectors = torch.randn(1, dims, *shape, generator=torch.Generator().manual_seed(seed))
    return Displacement(vectors, Grid(shape, affine))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 5), (6, 7, 1)])
def test_what_is_written_is_read_back(shape, suffix, tmp_path):
    u = field(shape)
    io.write_displacement(u, tmp_path / f"u{suffix}")
    again = io.read_displacement(tmp_path / f"u{suffix}")
    torch.testing.assert_close(again.tensor, u.tensor, atol=2e-6, rtol=0)
    assert again.grid.same_as(u.grid, tolerance=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [f"u{suffix}"]


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 5)])
def test_the_nifti_header_is_itks(shape, tmp_path):
    u = field(shape)
    io.write_displacement(u, tmp_path / "u.nii.gz")
    image = nibabel.load(tmp_path / "u.nii.gz")
    assert image.shape == (*shape, 1, len(shape)) if len(shape) == 3 else (*shape, 1, 1, 2)
    assert int(image.header["intent_code"]) == 1007
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.float32
    lps = np.asarray(image.dataobj)[2, 3, ..., 0, 0, :] if len(shape) == 2 else np.asarray(image.dataobj)[2, 3, 4, 0]
    ras = u.to_world()[(0, slice(None), *(2, 3, 4)[: len(shape)])].numpy()
    np.testing.assert_allclose(lps.ravel() * [-1, -1, 1][: len(shape)], ras, atol=1e-5)


def test_an_intent_of_ras_displacement_is_turned(tmp_path):
    u = field((5, 6, 4))
    io.write_displacement(u, tmp_path / "u.nii")
    image = nibabel.load(tmp_path / "u.nii")
    ras = np.asarray(image.dataobj) * np.array([-1, -1, 1], np.float32)
    image.header["intent_code"] = 1006
    nibabel.save(nibabel.Nifti1Image(ras, image.affine, image.header), tmp_path / "ras.nii")
    torch.testing.assert_close(io.read_displacement(tmp_path / "ras.nii").tensor, u.tensor, atol=1e-5, rtol=0)


def test_a_field_is_brought_to_a_grid(tmp_path):
    u = field((6, 7, 5))
    io.write_displacement(u, tmp_path / "u.mha")
    grid = u.grid.cropped((1, 2, 1), (3, 3, 3))
    on_grid = io.read_displacement(tmp_path / "u.mha", grid)
    assert on_grid.grid == grid
    torch.testing.assert_close(on_grid.tensor, u.tensor[:, :, 1:4, 2:5, 1:4], atol=1e-4, rtol=0)


def refuse(function, sentence, path):
    with pytest.raises(InputError, match=sentence) as caught:
        function()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [*FORMATS, ".txt", ".mat"])
def test_missing_empty_and_damaged(suffix, tmp_path):
    grid = Grid.regular((4, 4, 4))
    path = tmp_path / f"u{suffix}"
    refuse(lambda: io.read_displacement(path, grid), "no such file", path)
    path.touch()
    refuse(lambda: io.read_displacement(path, grid), "the file is empty", path)
    path.write_bytes(b"certainly no transform\n" * 30)
    refuse(lambda: io.read_displacement(path, grid), "expected a whole|not a readable", path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".h5"])
def test_truncated(suffix, tmp_path):
    path = tmp_path / f"u{suffix}"
    io.write_displacement(field((9, 9, 9)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refuse(lambda: io.read_displacement(path), "expected a whole|not a readable", path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_not_finite(suffix, tmp_path):
    u = field((5, 6))
    u.tensor[0, 0, 2, 2] = float("nan")
    path = tmp_path / f"u{suffix}"
    io.write_displacement(u, path)
    # ITK's text format has no word for NaN and stops there.
    refuse(lambda: io.read_displacement(path), "NaN or infinite|not a readable", path)


def test_an_image_is_no_field(tmp_path):
    for suffix in (".nii.gz", ".mha"):
        path = tmp_path / f"a{suffix}"
        io.write(io_volume((5, 6, 4)), path)
        refuse(lambda path=path: io.read_displacement(path), "expected", path)


def io_volume(shape):
    return Volume(torch.rand(1, 1, *shape), Grid.regular(shape))


def test_unknown_extensions(tmp_path):
    u = field((5, 6))
    refuse(lambda: io.write_displacement(u, tmp_path / "u.png"), "unknown extension '.png'", tmp_path / "u.png")
    (tmp_path / "u.xyz").write_text("1")
    refuse(lambda: io.read_displacement(tmp_path / "u.xyz"), "unknown format '.xyz'", tmp_path / "u.xyz")


def test_an_affine_needs_a_grid_of_its_dimensions(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    path = tmp_path / "a.tfm"
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    refuse(lambda: io.read_transform(path), "expected a grid", path)
    refuse(lambda: io.read_transform(path, Grid.regular((4, 4))), "expected a 2D transform", path)


def test_a_batch_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="a batch of 2"):
        io.write_displacement(Displacement(torch.zeros(2, 2, 4, 4), Grid.regular((4, 4))), tmp_path / "u.mha")
