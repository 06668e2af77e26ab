"""Registration of real heads, where they are at hand."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whence import io
from whence.field import folding, resample, warp
from whence.losses import make_similarity
from whence.registration import preset, register

DATA = Path(os.environ.get("WHENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.real


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"no {path}; set WHENCE_DATA to the folder of real images")


def dice(a, b):
    a, b = a.tensor.numpy() > 0, b.tensor.numpy() > 0
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@needs(DATA / "oasis_malf" / "1000_SS.nii.gz")
def test_two_heads_at_three_millimetres():
    home = DATA / "oasis_malf"
    fixed, moving = (io.read(home / f"{name}_SS.nii.gz") for name in ("1001", "1000"))
    tissues = [io.read_labels(home / f"{name}_tissues.nii.gz") for name in ("1001", "1000")]
    fixed, moving = (resample(image, image.grid.resampled(3.0)) for image in (fixed, moving))
    truth = resample(tissues[0], fixed.grid, "nearest")
    found = register(fixed, moving)
    white = truth.with_tensor((truth.tensor == 3).int())
    carried = warp(tissues[1].with_tensor((tissues[1].tensor == 3).int()), found.displacement, "nearest", "zeros")
    affine = register(fixed, moving, settings=replace(preset("fast"), diffeomorphic=None))
    before = warp(tissues[1].with_tensor((tissues[1].tensor == 3).int()), affine.displacement, "nearest", "zeros")
    assert dice(carried, white) > dice(before, white) + 0.05
    assert folding(found.displacement) < 1e-3
    points = fixed.grid.to_world(np.argwhere(fixed.numpy() > 0)[::11].astype(float))
    # A tenth of a voxel.
    assert np.linalg.norm(found.inverse(found.displacement(points)) - points, axis=1).mean() < 0.3


@needs(DATA / "templates" / "scct_stripped.nii.gz")
def test_a_ct_and_an_mr_template():
    home = DATA / "templates"
    fixed, moving = io.read(home / "avg152T1.nii.gz"), io.read(home / "scct.nii.gz")
    brains = io.read(home / "avg152T1_brain_mask.nii.gz"), io.read(home / "scct_stripped.nii.gz")
    brains = tuple(volume.with_tensor((volume.tensor > 0).float()) for volume in brains)
    grid = fixed.grid.resampled(4.0)
    fixed, moving = (resample(image, image.grid.resampled(4.0)) for image in (fixed, moving))
    truth = resample(brains[0], grid)
    truth = truth.with_tensor((truth.tensor > 0.5).float())
    found = register(fixed, moving, make_similarity("mind"))
    affine = register(fixed, moving, settings=replace(preset("fast"), diffeomorphic=None))
    after, before = (warp(brains[1], result.displacement) for result in (found, affine))
    after, before = (volume.with_tensor((volume.tensor > 0.5).float()) for volume in (after, before))
    # The masks were drawn by different hands and never agree in full.
    assert dice(after, truth) > dice(before, truth) + 0.015
    assert folding(found.displacement) < 1e-3
