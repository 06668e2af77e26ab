import gzip
import locale

import nibabel
import numpy as np
import pytest
import torch

from whence import io
from whence.errors import InputError
from whence.space import Grid, Volume

sitk = pytest.importorskip("SimpleITK")


def affine(spacing=(1.0, 2.0, 3.0), origin=(-10.0, 20.0, 5.0)):
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return matrix


def save_nifti(path, array, matrix=None, header=None):
    nibabel.save(nibabel.Nifti1Image(array, affine() if matrix is None else matrix, header), path)
    return path


NUMBERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("kind", [*NUMBERS, "uint64", "int64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_of_any_number_type(kind, suffix, tmp_path):
    array = np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(kind)
    path = tmp_path / f"a{suffix}"
    nibabel.save(nibabel.Nifti1Image(array, affine(), dtype=kind), path)
    volume = io.read(path)
    assert volume.tensor.dtype == torch.float32
    assert volume.tensor.shape == (1, 1, 4, 5, 6)
    np.testing.assert_array_equal(volume.numpy(), array)
    np.testing.assert_allclose(volume.grid.affine, affine())
    labels = io.read_labels(path)
    assert labels.tensor.dtype == torch.int32
    np.testing.assert_array_equal(labels.numpy(), array)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAI", "PSR", "SRA", "IPL"])
def test_nifti_of_any_orientation_keeps_its_axes_and_its_places(codes, tmp_path):
    base = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine())
    start = nibabel.orientations.io_orientation(base.affine)
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes))
    turned = base.as_reoriented(turn)
    nibabel.save(turned, tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    assert volume.grid.shape == turned.shape
    np.testing.assert_array_equal(volume.numpy(), np.asarray(turned.dataobj))
    canonical = volume.grid.canonical()
    assert canonical.shape == (3, 4, 5)
    np.testing.assert_allclose(canonical.affine, affine(), atol=1e-5)


def test_nifti_slope_and_intercept(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, affine())
    image.header.set_slope_inter(0.5, -100.0)
    nibabel.save(image, tmp_path / "a.nii")
    raw = nibabel.load(tmp_path / "a.nii")
    assert raw.dataobj.slope == pytest.approx(0.5)
    np.testing.assert_allclose(io.read(tmp_path / "a.nii").numpy(), stored * 0.5 - 100.0)
    with pytest.raises(InputError, match="expected labels"):
        io.read_labels(tmp_path / "a.nii")


def test_labels_in_a_scaled_file_are_still_whole(tmp_path):
    stored = (np.arange(24, dtype=np.uint8) * 10).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, affine())
    # A tenth has no exact float32: 10 x 0.1 comes back as 1.0000000149.
    image.header.set_slope_inter(0.1, 0.0)
    nibabel.save(image, tmp_path / "a.nii")
    assert np.abs(np.asarray(nibabel.load(tmp_path / "a.nii").dataobj) - stored / 10).max() > 0
    np.testing.assert_array_equal(io.read_labels(tmp_path / "a.nii").numpy(), stored // 10)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5), (1, 1, 4, 5)),
        ((4, 5, 1), (1, 1, 4, 5, 1)),
        ((4, 5, 6, 1), (1, 1, 4, 5, 6)),
        ((4, 5, 6, 1, 1), (1, 1, 4, 5, 6)),
        ((4, 5, 6, 3), (1, 3, 4, 5, 6)),
        ((4, 5, 6, 1, 3), (1, 3, 4, 5, 6)),
        ((4, 5, 1, 2), (1, 2, 4, 5, 1)),
    ],
)
def test_nifti_axes(shape, expected, tmp_path):
    array = np.random.default_rng(1).random(shape, dtype=np.float32)
    volume = io.read(save_nifti(tmp_path / "a.nii", array))
    assert volume.tensor.shape == expected
    channels_last = np.moveaxis(volume.tensor[0].numpy(), 0, -1)
    np.testing.assert_array_equal(channels_last.reshape(shape), array)


def test_nifti_of_too_many_axes(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6, 2, 3), np.float32))
    with pytest.raises(InputError, match="at most one axis of channels"):
        io.read(path)


def test_nifti_in_colour(tmp_path):
    colour = np.random.default_rng(2).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = save_nifti(tmp_path / "a.nii", colour.copy().view(kind).reshape(4, 5, 6))
    np.testing.assert_array_equal(io.read(path).tensor[0].numpy(), np.moveaxis(colour, -1, 0))


def test_sform_goes_before_qform(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine())
    image.set_qform(affine(origin=(1, 2, 3)), 1)
    image.set_sform(affine(), 1)
    nibabel.save(image, tmp_path / "both.nii")
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(io.read(tmp_path / "both.nii").grid.affine[:3, 3], [-10, 20, 5])
    np.testing.assert_allclose(io.read(tmp_path / "q.nii").grid.affine[:3, 3], [1, 2, 3])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 4), (7, 5, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_what_is_written_is_read_back(channels, shape, suffix, tmp_path):
    dims = len(shape)
    matrix = np.eye(dims + 1)
    matrix[:2, :2] = [[0.8 * np.cos(0.3), 1.3 * np.sin(0.3)], [0.8 * np.sin(0.3), -1.3 * np.cos(0.3)]]
    matrix[:2, dims] = [120.0, -75.5]
    volume = Volume(torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0)), Grid(shape, matrix))
    io.write(volume, tmp_path / f"a{suffix}")
    again = io.read(tmp_path / f"a{suffix}")
    assert torch.equal(again.tensor, volume.tensor)
    assert again.grid.same_as(volume.grid, tolerance=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize(
    ("top", "kind"), [(1, np.uint8), (255, np.uint8), (256, np.int16), (40000, np.int32), (2**40, np.int64)]
)
def test_labels_take_the_smallest_type(top, kind, tmp_path):
    labels = torch.zeros(1, 1, 4, 5, 6, dtype=torch.int64)
    labels[..., 2] = top
    io.write_labels(Volume(labels, Grid.regular((4, 5, 6))), tmp_path / "a.nii.gz")
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == kind
    again = io.read_labels(tmp_path / "a.nii.gz").tensor
    assert again.dtype == (torch.int64 if top > 2**31 else torch.int32)
    assert torch.equal(again.long(), labels)
    with pytest.raises(ValueError, match="labels are integers"):
        io.write_labels(Volume(labels.float(), Grid.regular((4, 5, 6))), tmp_path / "b.nii.gz")


def test_masks(tmp_path):
    mask = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    io.write(Volume(mask, Grid.regular((6, 6))), tmp_path / "m.nii.gz")
    assert nibabel.load(tmp_path / "m.nii.gz").get_data_dtype() == np.uint8
    assert torch.equal(io.read_labels(tmp_path / "m.nii.gz").tensor > 0, mask)


def test_a_sheared_nifti_has_no_qform_that_lies(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    io.write(Volume(torch.rand(1, 1, 4, 5, 6), Grid((4, 5, 6), sheared)), tmp_path / "a.nii.gz")
    assert int(nibabel.load(tmp_path / "a.nii.gz").header["qform_code"]) == 0
    np.testing.assert_allclose(io.read(tmp_path / "a.nii.gz").grid.affine, sheared)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "a.nii.gz"))


@pytest.mark.parametrize(
    ("suffix", "kind", "channels"),
    [
        (".png", "uint8", 1),
        (".png", "uint16", 1),
        (".png", "uint8", 3),
        (".png", "uint16", 3),
        (".jpg", "uint8", 1),
        (".jpeg", "uint8", 3),
    ],
)
def test_pictures(suffix, kind, channels, tmp_path):
    x, y = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
    top = np.iinfo(kind).max
    array = np.stack([(x * (i + 1) + y) * top // 100 for i in range(channels)]).clip(0, top).astype(kind)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0) if channels > 1 else array[0].T, isVector=channels > 1)
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = io.read(tmp_path / f"a{suffix}")
    assert volume.tensor.shape == (1, channels, 20, 16)
    # JPEG loses; the rest is exact.
    np.testing.assert_allclose(volume.tensor[0].numpy(), array, atol=12 if suffix != ".png" else 0)
    np.testing.assert_array_equal(volume.grid.affine, np.diag([-1.0, -1.0, 1.0]))


def test_a_pictures_transparency_is_dropped(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (6, 5, 4)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(io.read(tmp_path / "a.png").tensor[0].numpy(), array[..., :3].transpose(2, 1, 0))


@pytest.mark.parametrize("scale", [255, 65535])
def test_pictures_keep_whole_numbers_and_stretch_the_rest(scale, tmp_path):
    values = torch.linspace(0, 1, 12).reshape(1, 1, 4, 3)
    grid = Grid.regular((4, 3))
    io.write(Volume((values * scale).round(), grid), tmp_path / "whole.png")
    assert torch.equal(io.read(tmp_path / "whole.png").tensor, (values * scale).round())
    io.write(Volume(values * 4 - 2, grid), tmp_path / "stretched.png")
    np.testing.assert_allclose(io.read(tmp_path / "stretched.png").tensor, values * 65535, atol=0.51)
    io.write(Volume(values * 4 - 2, grid), tmp_path / "stretched.jpg")
    assert float(io.read(tmp_path / "stretched.jpg").tensor.max()) > 240


def test_a_picture_is_flat(tmp_path):
    with pytest.raises(InputError, match="a picture is 2D"):
        io.write(Volume(torch.zeros(1, 1, 4, 4, 4), Grid.regular((4, 4, 4))), tmp_path / "a.png")
    with pytest.raises(InputError, match="a picture is 2D with 1 or 3 channels"):
        io.write(Volume(torch.zeros(1, 2, 4, 4), Grid.regular((4, 4))), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def dicom_series(folder, slices, uid="1.2.826.0.1.3680043.2.1125.1", positions=None, oblique=False):
    """A CT series as a scanner writes it, its files named out of order."""
    folder.mkdir(exist_ok=True)
    angle = 0.3 if oblique else 0.0
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    orientation = f"1\\0\\0\\0\\{np.cos(angle):.8f}\\{np.sin(angle):.8f}"
    array = np.random.default_rng(0).integers(-1000, 1500, (slices, 6, 5)).astype(np.int16)
    positions = [2.5 * k for k in range(slices)] if positions is None else positions
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    before = locale.setlocale(locale.LC_CTYPE)
    for k, height in enumerate(positions):
        image = sitk.GetImageFromArray(array[k])
        image.SetSpacing([0.8, 0.9])
        where = np.array([-30.0, 12.0, 4.0]) + height * normal
        for key, value in {
            "0008|0060": "CT",
            "0020|000d": uid + ".9",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k + 1}",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{v:.6f}" for v in where),
            "0020|0037": orientation,
            "0028|1052": "0",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid[-1]}-{(k * 7) % 11:02d}.dcm"))
        writer.Execute(image)
    # ITK's DICOM writer leaves the process in the C locale, where later tests read text as ASCII.
    locale.setlocale(locale.LC_CTYPE, before)
    return array[: len(positions)]


@pytest.mark.parametrize("oblique", [False, True])
def test_a_dicom_series_is_sorted_by_position(oblique, tmp_path):
    array = dicom_series(tmp_path / "scan", 5, oblique=oblique)
    volume = io.read(tmp_path / "scan")
    np.testing.assert_array_equal(volume.numpy(), array.T)
    np.testing.assert_allclose(volume.grid.spacing, [0.8, 0.9, 2.5], atol=1e-4)
    np.testing.assert_allclose(volume.grid.to_world([0.0, 0, 0]), [30, -12, 4], atol=1e-4)
    lift = 2.5 * np.array([0, -np.sin(0.3), np.cos(0.3)]) if oblique else np.array([0, 0, 2.5])
    np.testing.assert_allclose(volume.grid.to_world([0.0, 0, 2]), [30, -12 - 2 * lift[1], 4 + 2 * lift[2]], atol=1e-3)


def test_one_dicom_file(tmp_path):
    array = dicom_series(tmp_path / "scan", 1)
    file = next((tmp_path / "scan").iterdir())
    assert io.read(file).tensor.shape == (1, 1, 5, 6, 1)
    np.testing.assert_array_equal(io.read(file).numpy(), array.T)
    bare = file.rename(tmp_path / "IM0001")
    np.testing.assert_array_equal(io.read(bare).numpy(), array.T)


def test_several_series_are_named(tmp_path):
    dicom_series(tmp_path / "scan", 3)
    dicom_series(tmp_path / "scan", 3, uid="1.2.826.0.1.3680043.2.1125.2")
    with pytest.raises(InputError, match=r"2 DICOM series.*1125\.1.*1125\.2.*expected one"):
        io.read(tmp_path / "scan")


def test_a_gap_in_a_series_is_refused(tmp_path):
    dicom_series(tmp_path / "scan", 4, positions=[0, 2.5, 7.5, 10.0])
    with pytest.raises(InputError, match="5 mm between"):
        io.read(tmp_path / "scan")


def test_a_folder_without_dicom(tmp_path):
    with pytest.raises(InputError, match="no DICOM series"):
        io.read(tmp_path)


class TestBadInput:
    """Each gives one sentence that names the file."""

    def refuse(self, path, sentence, reader=io.read):
        with pytest.raises(InputError, match=sentence) as caught:
            reader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("reader", [io.read, io.read_labels])
    def test_missing(self, reader, tmp_path):
        self.refuse(tmp_path / "none.nii.gz", "no such file", reader)

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".jpg"])
    def test_truncated(self, suffix, tmp_path):
        shape = (32, 33) if suffix in (".png", ".jpg") else (20, 21, 22)
        values = torch.randint(0, 255, (1, 1, *shape), generator=torch.Generator().manual_seed(0)).float()
        path = tmp_path / f"a{suffix}"
        io.write(Volume(values, Grid.regular(shape)), path)
        whole = path.read_bytes()
        for share in (0.1, 0.6):
            path.write_bytes(whole[: int(len(whole) * share)])
            self.refuse(path, "expected a whole")

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".png", ".jpg", ".dcm"])
    def test_not_what_its_name_says(self, suffix, tmp_path):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"certainly no image" * 40)
        self.refuse(path, "expected a whole")

    def test_damaged_inside(self, tmp_path):
        path = save_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).random((20, 20, 20)))
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2 : len(whole) // 2 + 50] = b"\x00" * 50
        path.write_bytes(whole)
        self.refuse(path, "expected a whole NIfTI file")

    def test_gz_that_is_none(self, tmp_path):
        save_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32)).rename(tmp_path / "a.nii.gz")
        self.refuse(tmp_path / "a.nii.gz", "expected a whole NIfTI file")

    def test_unknown_format(self, tmp_path):
        (tmp_path / "a.xyz").write_text("1")
        self.refuse(tmp_path / "a.xyz", "unknown format '.xyz'")
        (tmp_path / "noname").write_text("1" * 200)
        self.refuse(tmp_path / "noname", "unknown format")

    @pytest.mark.parametrize("suffix", [".nii.gz", ".png", ".mha"])
    def test_empty(self, suffix, tmp_path):
        (tmp_path / f"a{suffix}").touch()
        self.refuse(tmp_path / f"a{suffix}", "the file is empty")

    def test_no_voxels(self, tmp_path):
        header = nibabel.Nifti1Header()
        header.set_data_shape((4, 0, 4))
        header.set_sform(np.eye(4), 1)
        header["magic"] = b"n+1"
        header["vox_offset"] = 352
        (tmp_path / "a.nii").write_bytes(header.binaryblock + b"\0" * 4)
        self.refuse(tmp_path / "a.nii", "empty|expected a whole")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
    @pytest.mark.parametrize("reader", [io.read, io.read_labels])
    def test_not_finite(self, value, reader, tmp_path):
        array = np.zeros((4, 4, 4))
        array[1, 2, 3] = value
        path = save_nifti(tmp_path / "a.nii.gz", array)
        if value == 1e300 and reader is io.read_labels:
            self.refuse(path, "too large", reader)
        else:
            self.refuse(path, "1 of 64 voxels are NaN or infinite", reader)

    def test_complex(self, tmp_path):
        path = save_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.complex64))
        self.refuse(path, "expected real numbers")
        self.refuse(path, "expected whole numbers", io.read_labels)

    def test_fractions_are_no_labels(self, tmp_path):
        array = np.zeros((4, 4, 4), np.float32)
        array[0, 0, 0] = 1.5
        self.refuse(save_nifti(tmp_path / "a.nii", array), "got 1.5", io.read_labels)

    def test_singular_affine(self, tmp_path):
        image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))
        image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
        nibabel.save(image, tmp_path / "a.nii")
        self.refuse(tmp_path / "a.nii", "singular")

    def test_a_2d_slice_across_the_plane_has_no_place(self, tmp_path):
        coronal = np.array([[1, 0, 0, 5], [0, 0, 1, 6], [0, 2, 0, 7], [0, 0, 0, 1.0]])
        self.refuse(save_nifti(tmp_path / "a.nii", np.ones((4, 5), np.float32), coronal), "singular")

    def test_unwritable_extension(self, tmp_path):
        volume = Volume(torch.zeros(1, 1, 4, 4), Grid.regular((4, 4)))
        self.refuse(tmp_path / "a.bmp", "unknown extension '.bmp'", lambda p: io.write(volume, p))


def test_nifti2_is_read(tmp_path):
    array = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    for suffix in (".nii", ".nii.gz"):
        nibabel.save(nibabel.Nifti2Image(array, affine()), tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(io.read(tmp_path / f"a{suffix}").numpy(), array)


def test_a_gzip_of_many_members_is_read(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.random.default_rng(0).random((8, 8, 8)))
    whole = path.read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]))
    assert torch.equal(io.read(tmp_path / "b.nii.gz").tensor, io.read(path).tensor)
