"""Anatomy, noise, shapes, flows: each against what it must be by its definition."""

import numpy as np
import pytest
import torch

from whence import kernels
from whence.data.phantom.anatomy import BRAIN, GM, T1, WM, anatomy, head_grid, to_voxel, to_world
from whence.data.phantom.appearance import acquire, contrast, draw_protocol
from whence.data.phantom.landmarks import draw_landmarks
from whence.data.phantom.motion import pressure_flow, refine_inverse, two_dates
from whence.data.phantom.noise import smooth_noise
from whence.data.phantom.shapes import inside, irregular_region, smooth_maximum, smooth_minimum
from whence.data.phantom.subject import draw_subject
from whence.field import Displacement, compose, folding, jacobian_determinant
from whence.space import Grid


def test_the_template_shows_known_places_at_their_coordinates():
    head = anatomy(3, 1.0)
    places = {
        # RAS mm in MNI space: frontal horn, corona radiata, thalamus, far outside.
        "ventricle": (-7.0, 20.0, 8.0),
        "white": (-26.0, -20.0, 34.0),
        "grey": (10.0, -20.0, 8.0),
        "outside": (0.0, 95.0, 60.0),
    }
    values = head.sample(torch.tensor(list(places.values())).T.reshape(3, -1, 1, 1)).numpy()[..., 0, 0]
    values = dict(zip(places, values.T, strict=True))
    assert values["ventricle"][GM] + values["ventricle"][WM] < 0.3
    assert values["ventricle"][BRAIN] == 1
    assert values["white"][WM] > 0.9
    assert values["grey"][GM] > values["grey"][WM]
    assert np.all(values["outside"] == 0)
    assert values["ventricle"][T1] < values["grey"][T1] < values["white"][T1]


def test_a_level_is_the_slice_of_the_head():
    head, level = anatomy(3, 1.0), anatomy(2, 1.0, 20)
    row = round(20 - head.grid.affine[2, 3])
    assert torch.equal(level.maps, head.maps[..., row])
    point = np.array([[12.0, -30.0]])
    inside_head = head.grid.to_voxel(np.array([[12.0, -30.0, 20.0]]))
    assert level.grid.to_voxel(point)[0] == pytest.approx(inside_head[0, :2])


@pytest.mark.parametrize("dims", [2, 3])
def test_voxels_and_world_agree_with_the_grid(dims):
    grid = head_grid(40, dims)
    voxels = np.random.default_rng(0).uniform(0, 39, (7, dims))
    world = to_world(torch.from_numpy(voxels.T.copy()), grid)
    np.testing.assert_allclose(world.numpy().T, grid.to_world(voxels))
    np.testing.assert_allclose(to_voxel(world, grid).numpy().T, voxels, atol=1e-9)


@pytest.mark.parametrize("shape", [(64, 51), (40, 36, 31)])
def test_noise_is_standard_and_as_smooth_as_asked(shape):
    width = 2.5
    field = smooth_noise(np.random.default_rng(1), shape, width, 400 if len(shape) == 2 else 150)
    assert field.mean(axis=tuple(range(1, field.ndim))) == pytest.approx(0, abs=1e-5)
    assert field.std(axis=tuple(range(1, field.ndim))) == pytest.approx(1, abs=1e-4)
    # White noise under a Gaussian of width w has the autocorrelation exp(-d^2 / 4 w^2), less what goes
    # with the mean of a lattice of finite size.
    lost = (2 * np.pi**0.5 * width) ** len(shape) / np.prod(shape)
    expected = (np.exp(-9 / (4 * width**2)) - lost) / (1 - lost)
    shifted = float((field * np.roll(field, 3, axis=1)).mean())
    assert shifted == pytest.approx(expected, abs=0.015)


def test_level_sets_join_and_meet():
    a, b = np.linspace(-3, 3, 61), np.full(61, 0.4)
    assert np.all(smooth_maximum(a, b, 0.5) >= np.maximum(a, b))
    assert np.all(smooth_minimum(a, b, 0.5) <= np.minimum(a, b))
    assert smooth_maximum(a, b, 1e-6) == pytest.approx(np.maximum(a, b), abs=1e-6)
    assert inside(np.array([-50.0, 0.0, 50.0]), 1.0) == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_region_has_its_size_but_is_no_ball(dims):
    grid = Grid.regular((48,) * dims, 1.5, centred=True)
    positions = to_world(kernels.identity(grid.shape)[0], grid).numpy()
    ratios = []
    for seed in range(8):
        level = irregular_region(np.random.default_rng(seed), positions, np.zeros(dims), 14.0, 1.5, 0.4, 1 + seed % 2)
        region = level < 0
        volume = region.sum() * 1.5**dims
        ball = np.pi * 14**2 if dims == 2 else 4 / 3 * np.pi * 14**3
        assert 0.5 < volume / ball < 2.6
        wall = region & ~_eroded(region)
        away = positions[:, wall] - positions[:, region].mean(axis=1, keepdims=True)
        lengths = np.sqrt((away**2).sum(axis=0))
        ratios.append(lengths.std() / lengths.mean())
    # On this lattice a ball's boundary voxels vary by 3 %.
    assert min(ratios) > 0.07


@pytest.mark.parametrize("dims", [2, 3])
def test_pressure_pushes_away_and_fades(dims):
    grid = Grid.regular((48,) * dims, 2.0, centred=True)
    positions = to_world(kernels.identity(grid.shape)[0], grid).numpy()
    radius = np.sqrt((positions**2).sum(axis=0))
    flow = pressure_flow(inside(radius - 10, 2.0), np.ones(grid.shape), 15.0, 2.0)
    length = np.sqrt((flow**2).sum(axis=0))
    assert length.max() == pytest.approx(1)
    away = (flow * positions).sum(axis=0) / (np.maximum(length, 1e-9) * np.maximum(radius, 1e-9))
    assert away[(radius > 4) & (radius < 35)].min() > 0.99
    assert radius[np.unravel_index(length.argmax(), length.shape)] == pytest.approx(10, abs=3)
    ring = [length[(radius > r - 1) & (radius < r + 1)].mean() for r in (12, 20, 30, 40)]
    assert np.all(np.diff(ring) < 0)
    assert ring[-1] < 0.12


def test_refinement_inverts_a_map_that_stretches_threefold():
    grid = Grid.regular((64, 64))
    x = torch.linspace(-1, 1, 64)
    bump = torch.exp(-(x[:, None] ** 2 + x[None] ** 2) * 6)
    velocity = Displacement(torch.stack([bump * x[:, None], bump * x[None]])[None] * 36, grid)
    dates = two_dates(torch.zeros(2, 64, 64).numpy(), velocity.tensor[0].numpy(), grid)
    assert float(jacobian_determinant(dates.displacement).max()) > 3
    rough = Displacement(dates.inverse.tensor + 0.2 * bump, grid)
    better = refine_inverse(dates.displacement, rough, 6)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert float(compose(rough, dates.displacement).tensor[inner].abs().max()) > 0.3
    assert float(compose(better, dates.displacement).tensor[inner].abs().max()) < 0.01


def test_a_velocity_that_would_fold_is_weakened_the_same_each_time():
    grid = Grid.regular((40, 40))
    wild = 14 * smooth_noise(np.random.default_rng(0), (40, 40), 2.0, 2)
    first, second = two_dates(wild, -wild, grid), two_dates(wild, -wild, grid)
    assert first.strength < 1
    assert first.strength == second.strength
    assert torch.equal(first.displacement.tensor, second.displacement.tensor)
    for field in (first.before, first.after, first.displacement, first.inverse):
        assert folding(field) == 0
        assert float(jacobian_determinant(field).min()) >= 0.05


@pytest.mark.parametrize("dims", [2, 3])
def test_subjects_differ_and_never_fold(dims):
    grid = head_grid(48, dims)
    people = [draw_subject(np.random.default_rng(seed), anatomy(dims, 4.3), grid) for seed in (0, 1)]
    for person in people:
        # Template points as a displacement on the grid, for the determinant.
        u = (person.template_points - torch.from_numpy(person.positions)) / person.spacing
        det = jacobian_determinant(Displacement(u[None], grid))
        assert float(det.min()) > 0.2
        assert person.depth.max() > 30
    overlap = [p.maps[BRAIN] > 0.5 for p in people]
    dice = 2 * (overlap[0] & overlap[1]).sum() / (overlap[0].sum() + overlap[1].sum())
    assert 0.8 < dice < 0.995


def test_a_protocol_keeps_the_order_of_tissues_and_background_dark():
    rng = np.random.default_rng(0)
    protocol = draw_protocol(rng)
    csf, grey, white = contrast(np.array([0.28, 0.655, 0.87], dtype=np.float32), protocol)
    assert csf < grey < white
    clean = np.zeros((64, 64), dtype=np.float32)
    clean[16:48, 16:48] = white
    scan = acquire(rng, clean, protocol, 1.6)
    assert scan.dtype == np.float32
    assert scan[:12].mean() < 0.06 * scan[20:44, 20:44].mean()
    # Rayleigh's mean, sigma * sqrt(pi / 2), is what magnitude makes of noise alone.
    assert scan[:12].mean() == pytest.approx(protocol.scale * protocol.noise * np.sqrt(np.pi / 2), rel=0.06)


def test_landmarks_are_as_many_without_a_lost_region():
    grid = head_grid(40, 2)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[8:32, 6:34] = 2
    lost = np.zeros(grid.shape, dtype=bool)
    points = draw_landmarks(np.random.default_rng(0), grid, labels, lost, 30)
    assert points.shape == (30, 2)
    assert grid.contains(points).all()


def _eroded(region: np.ndarray) -> np.ndarray:
    padded = np.pad(region, 1)
    out = padded.copy()
    for axis in range(region.ndim):
        out &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return out[(slice(1, -1),) * region.ndim]
