"""How images enter a network and how its answer returns, whatever the image's orientation, spacing and size."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from whence.data import Frame, Intensity, PairDataset, read_pairs, survey, write_pairs
from whence.data.frame import PLANES, fit_shape, unfit_shape, up_to_multiple
from whence.errors import InputError
from whence.io import write
from whence.models import Method, Prediction
from whence.models.predictor import Predictor
from whence.space import Grid, Volume


class Known(Method):
    """A method whose motion is known: a constant, or a wave over the lattice it is shown."""

    name = "known"
    multiple = 8

    def __init__(self, shift=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.shift = shift

    def infer(self, batch, generator):
        source = batch["source"]
        dims = source.ndim - 2
        if self.shift is not None:
            field = torch.tensor(self.shift).reshape(1, dims, *[1] * dims).expand(len(source), dims, *source.shape[2:])
            return Prediction(-source, field, -field)
        axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in source.shape[2:]), indexing="ij")
        field = torch.stack([torch.sin(3 * axes[d] + 2 * axes[d - 1] + d) for d in range(dims)])
        field = field.expand(len(source), *field.shape)
        return Prediction(-source, field, -field)


def brain(shape, spacing, seed=0):
    array = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    array = 100 + 900 * (array - array.min()) / (array.max() - array.min())
    return Volume(torch.from_numpy(array.astype(np.float32))[None, None], Grid.regular(shape, spacing, centred=True))


def reordered(volume, permutation, flips):
    """The same image in the same world, its array permuted and flipped."""
    tensor = volume.tensor.permute(0, 1, *(2 + p for p in permutation))
    return Volume(tensor.flip([2 + a for a, f in enumerate(flips) if f]), volume.grid._reordered(permutation, flips))


def orientations(dims):
    every = list(itertools.product(itertools.permutations(range(dims)), itertools.product([False, True], repeat=dims)))
    return every if dims == 2 else every[1::5]


def predictor(plane, volume, shift=None, spacing=None):
    dims = 2 if plane or volume.dims == 2 else 3
    inside = [a for a in range(volume.dims) if plane is None or a != PLANES.index(plane)]
    spacing = spacing or tuple(volume.grid.spacing[inside])
    return Predictor(Known(shift), Frame(dims, spacing, (16,) * dims, plane=plane))


CASES = [(None, (24, 16), (1.0, 1.5)), (None, (16, 8, 24), (1.0, 1.5, 2.0))] + [
    (plane, (16, 24, 8), (1.0, 1.5, 3.0)) for plane in PLANES
]


@pytest.mark.parametrize(("plane", "shape", "spacing"), CASES)
def test_the_same_field_in_the_world_in_every_orientation(plane, shape, spacing):
    volume = brain(shape, spacing)
    model = predictor(plane, volume)
    first = model.predict(volume)
    points = volume.grid.to_world(np.random.default_rng(0).uniform(0, np.array(shape) - 1, (60, len(shape))))
    assert np.abs(first.whence(points) - points).max() > 0.5
    for permutation, flips in orientations(volume.dims):
        copy = reordered(volume, permutation, flips)
        found = model.predict(copy)
        # The lattice is the same, so that only float32 is between the two.
        assert np.abs(found.whence(points) - first.whence(points)).max() < 1e-3
        assert np.abs(found.whither(points) - first.whither(points)).max() < 1e-3
        expected = reordered(first.image, permutation, flips).tensor
        assert float((found.image.tensor - expected).abs().max()) < 0.1  # of a range of 900


@pytest.mark.parametrize("plane", PLANES)
def test_slices_stay_in_their_plane(plane):
    volume = brain((16, 24, 8), (1.0, 1.5, 3.0))
    trace = predictor(plane, volume).predict(volume)
    points = volume.grid.to_world(np.random.default_rng(0).uniform(1, 6, (40, 3)))
    moved = trace.whence(points) - points
    axis = PLANES.index(plane)
    assert np.abs(moved[:, axis]).max() < 1e-5
    assert (np.abs(np.delete(moved, axis, axis=1)).max(axis=0) > 0.1).all()


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((21, 19, 5), (1.0, 1.0, 4.0)), ((13, 40, 7), (2.0, 0.7, 3.0)), ((30, 17, 9), (0.5, 1.25, 1.0))],
)
@pytest.mark.parametrize("plane", [None, *PLANES])
def test_sizes_and_spacings_are_the_frames_business(plane, shape, spacing):
    """A shift of whole lattice voxels is the same shift in mm on any image, rotated with it."""
    volume = brain(shape, spacing)
    dims = 2 if plane else 3
    shift, lattice = (2.0, -1.0, 1.0)[:dims], (1.5, 2.0, 2.5)[:dims]
    model = predictor(plane, volume, shift, lattice)
    expected = np.zeros(3)
    inside = [a for a in range(3) if plane is None or a != PLANES.index(plane)]
    expected[inside] = np.multiply(shift, lattice)
    angle = 0.2
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for world in (np.eye(4), turn):
        there = Volume(volume.tensor, Grid(volume.grid.shape, world @ volume.grid.affine))
        trace = model.predict(there)
        assert trace.image.grid == there.grid
        points = there.grid.to_world(np.random.default_rng(0).uniform(0, np.array(shape) - 1, (30, 3)))
        assert np.abs(trace.whence(points) - points - world[:3, :3] @ expected).max() < 1e-3
        assert np.abs(trace.whither(points) - points + world[:3, :3] @ expected).max() < 1e-3


def test_batches_of_slices_are_put_together_in_order():
    volume = brain((16, 16, 21), (1.0, 1.0, 2.0))
    whole = predictor("axial", volume)
    small = Predictor(whole.method, whole.frame, batch=4)
    assert torch.equal(whole.predict(volume).image.tensor, small.predict(volume).image.tensor)


def test_a_model_of_2d_files_takes_volumes_as_axial_slices():
    volume = brain((16, 16, 5), (1.0, 1.0, 3.0))
    model = Predictor(Known((1.0, -2.0)), Frame(2, (1.0, 1.0), (16, 16)))
    trace = model.predict(volume)
    assert trace.image.grid == volume.grid
    assert np.allclose(trace.whence([[0.0, 0.0, 0.0]]), [[1.0, -2.0, 0.0]], atol=1e-4)


def test_wrong_images_are_named():
    frame = Frame(2, (1.0, 1.0), (16, 16))
    with pytest.raises(InputError, match=r"expects 3D images; knee\.nii is 2D"):
        Frame(3, (1.0,) * 3, (16,) * 3).lattice(Grid.regular((8, 8)), "knee.nii")
    with pytest.raises(InputError, match="unknown plane 'oblique'"):
        Frame(2, (1.0, 1.0), (16, 16), plane="oblique")
    with pytest.raises(InputError, match=r"of 1 channel\(s\); knee\.nii has 2 channels"):
        Predictor(Known(), frame).predict(Volume(torch.zeros(1, 2, 8, 8), Grid.regular((8, 8))), name="knee.nii")


@pytest.mark.parametrize(("shape", "wanted"), [((5, 8), (8, 8)), ((7, 6, 3), (8, 8, 8)), ((9,) * 2, (16, 10))])
def test_fit_and_unfit(shape, wanted):
    tensor = torch.arange(float(np.prod(shape))).reshape(1, 1, *shape)
    fitted = fit_shape(tensor, wanted)
    assert fitted.shape[2:] == wanted
    assert torch.equal(unfit_shape(fitted, shape), tensor)
    assert float(fitted.min()) == -1
    assert fit_shape(fitted, shape).shape == tensor.shape
    assert torch.equal(fit_shape(fitted, shape), tensor)
    assert up_to_multiple((1, 8, 9), 8) == (8, 8, 16)


def test_intensity():
    volume = brain((20, 20), (1.0, 1.0))
    scale = Intensity.of(volume)
    inside = scale.normalise(volume.tensor)
    assert float(inside.min()) == -1
    assert float(inside.max()) == 1
    kept = inside.abs() < 1
    assert torch.allclose(scale.restore(inside)[kept], volume.tensor[kept], rtol=1e-4)
    # Any linear scale of the file looks the same to the network.
    other = volume.with_tensor(3 * volume.tensor - 50)
    assert torch.allclose(Intensity.of(other).normalise(other.tensor), inside, atol=1e-4)


@pytest.fixture
def table(tmp_path):
    """Five pairs: 3D volumes of differing shapes and spacings, or whatever replaces their files."""
    shapes = [(16, 20, 6), (18, 16, 6), (14, 14, 8)]
    rows = []
    for n, shape in enumerate(shapes):
        for side in ("source", "target"):
            write(brain(shape, (1.0 + n / 4, 1.0 + n / 4, 3.0), n), tmp_path / f"{side}{n}.nii.gz")
        rows.append({"id": str(n), "source": f"source{n}.nii.gz", "target": f"target{n}.nii.gz", "split": "train"})
    return read_pairs(write_pairs(tmp_path / "pairs.csv", rows))


def test_survey(table):
    frame = survey(table)
    assert (frame.dims, frame.plane, frame.source_channels) == (3, None, 1)
    assert frame.spacing == (1.25, 1.25, 3.0)
    # 18 x 1.25 mm is the widest, 14 x 1.5 mm the longest, 8 x 3 mm the highest.
    assert frame.shape == (18, 17, 8)
    flat = survey(table, plane="axial")
    assert (flat.dims, flat.spacing) == (2, (1.25, 1.25))
    assert survey(table, plane="coronal").spacing == (1.25, 3.0)
    assert survey(table, plane="axial", size=(32, 32), spacing=(2, 2)).shape == (32, 32)
    assert Frame(**flat.to_dict()) == flat


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dims": 2}, "needs the plane"),
        ({"plane": "oblique"}, "unknown plane"),
        ({"plane": "axial", "size": (8, 8, 8)}, "--size needs 2 numbers"),
        ({"spacing": (1.0,)}, "--spacing needs 3 numbers"),
    ],
)
def test_survey_refuses(options, match, table):
    with pytest.raises(InputError, match=match):
        survey(table, **options)


def test_tables_of_mixed_images(table):
    folder = table.path.parent
    write(brain((16, 16), (1.0, 1.0)), folder / "source2.nii.gz")
    with pytest.raises(InputError, match=r"source2\.nii\.gz is 2D with 1 channels"):
        survey(table)
    write(brain((14, 14, 8), (1.0, 1.0, 3.0)), folder / "source2.nii.gz")
    two = brain((14, 14, 8), (1.0, 1.0, 3.0))
    write(two.with_tensor(two.tensor.expand(1, 2, *two.grid.shape)), folder / "target1.nii.gz")
    with pytest.raises(InputError, match=r"target1\.nii\.gz has 2 channels; expected 1"):
        PairDataset(table, survey(table))
    write(brain((16, 16), (1.0, 1.0)), folder / "target1.nii.gz")
    with pytest.raises(InputError, match=r"target1\.nii\.gz is 2D while .*source1\.nii\.gz is 3D"):
        PairDataset(table, survey(table))


def test_samples(table):
    frame = survey(table)
    whole = PairDataset(table, frame)
    assert len(whole) == 3
    assert whole[0]["source"].shape == (1, *frame.shape)
    assert whole[0]["source"].dtype == torch.float32
    assert -1 <= float(whole[2]["target"].min()) <= float(whole[2]["target"].max()) <= 1
    slices = PairDataset(table, survey(table, plane="axial"))
    assert len(slices) == 6 + 6 + 8
    assert slices.ids == ["0"] * 6 + ["1"] * 6 + ["2"] * 8
    assert slices[0]["source"].shape == (1, *survey(table, plane="axial").shape)


@pytest.mark.parametrize("plane", [None, "axial"])
def test_an_atlas_that_all_rows_share_is_kept_once(table, plane):
    def samples_of(name, sources):
        rows = [
            {"id": row.id, "split": row.split, "source": source, "target": row.path("target")}
            for row, source in zip(table, sources, strict=True)
        ]
        found = read_pairs(write_pairs(table.path.parent / name, rows))
        return PairDataset(found, survey(found, plane=plane))

    atlas = table.rows[0].path("source")
    copies = [shutil.copy(atlas, atlas.with_name(f"copy{n}.nii.gz")) for n in range(len(table))]
    shared, apart = samples_of("shared.csv", [atlas] * len(table)), samples_of("apart.csv", copies)
    assert shared.ids == apart.ids
    for name in ("source", "target"):
        assert all(torch.equal(shared[n][name], apart[n][name]) for n in range(len(shared)))
    places = [
        {samples.samples[samples.ids.index(n)]["source"].data_ptr() for n in "012"} for samples in (shared, apart)
    ]
    assert list(map(len, places)) == [1, 3]


def test_slices_without_anything_in_them_are_left_out(table):
    folder = table.path.parent
    volume = brain((16, 20, 6), (1.0, 1.0, 3.0))
    volume.tensor[..., :2] = 0
    write(volume, folder / "target0.nii.gz")
    assert PairDataset(table, survey(table, plane="axial")).ids.count("0") == 4
    for n in range(3):
        empty = torch.zeros(1, 1, 16, 20, 6)
        empty[..., 0, 0, :] = 1
        write(Volume(empty, volume.grid), folder / f"target{n}.nii.gz")
    with pytest.raises(InputError, match=r"no slice of .* shows enough foreground"):
        PairDataset(table, survey(table, plane="axial"), foreground=0.1)


def test_a_file_of_one_slice_is_a_slice(table):
    folder = table.path.parent
    for n in range(3):
        for side in ("source", "target"):
            write(brain((16, 1, 12), (1.0, 3.0, 1.0), n), folder / f"{side}{n}.nii.gz")
    frame = survey(table)
    assert (frame.dims, frame.plane, frame.shape) == (2, "coronal", (16, 12))
    assert len(PairDataset(table, frame)) == 3
