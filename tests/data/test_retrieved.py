"""Past cases beside training samples lie where they lie in the world, whatever part of it their files show."""

import torch

from whence.data.dataset import PairDataset
from whence.data.frame import Frame, fit_grid, fit_shape
from whence.data.pairs import read_pairs, write_pairs
from whence.data.retrieved import RetrievedDataset
from whence.field import resample
from whence.io import write, write_labels
from whence.space import Grid, Volume

GRID = Grid.regular((24, 20), 2.0)


def test_a_fitted_grid_is_that_of_the_fitted_voxels():
    image = Volume(torch.arange(480.0).reshape(1, 1, 24, 20), GRID)
    for shape in ((24, 20), (17, 31), (30, 13)):
        grid = fit_grid(GRID, shape)
        shown = resample(image, grid, outside="zeros").tensor
        torch.testing.assert_close(fit_shape(image.tensor, shape, 0.0), shown, atol=1e-3, rtol=0)


def test_a_case_cut_off_at_one_side_lies_where_it_lay(tmp_path):
    rows = []
    for number, start in enumerate([0, 6]):
        image = torch.rand((1, 1, 24, 20), generator=torch.Generator().manual_seed(7))
        mask = torch.zeros(1, 1, 24, 20, dtype=torch.uint8)
        mask[..., 12:16, 8:12] = 1
        # The ends of the intensities lie in what both files show.
        image[..., 20, 8:14] = torch.tensor([-3.0, -3.0, -3.0, 4.0, 4.0, 4.0])
        part = GRID.cropped((start, 0), (24 - start, 20))
        files = {name: tmp_path / f"{name}_{number}.nii.gz" for name in ("source", "target", "source_mask")}
        for name in ("source", "target"):
            write(Volume(image[:, :, start:].contiguous(), part), files[name])
        write_labels(Volume(mask[:, :, start:].contiguous(), part), files["source_mask"])
        rows.append({"id": f"p{number}", "split": "train", **files})
    table = read_pairs(write_pairs(tmp_path / "pairs.csv", rows))
    pool = PairDataset(table, Frame(2, (2.0, 2.0), (24, 20)), masks=("source_mask",), optional=())
    assert not pool.grids[0].same_as(pool.grids[1])
    sample = RetrievedDataset(pool, pool, [[1], [0]])[0]
    assert torch.equal(sample["case_source_mask"], sample["source_mask"])
    # Each is scaled by its own quantiles, of a few voxels more or less.
    assert float((sample["case_source"] - sample["source"])[:, 6:].abs().max()) < 0.1
    assert torch.equal(sample["case_source"][:, :6], torch.full((1, 6, 20), -1.0))
