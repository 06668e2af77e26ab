"""Several draws joined: the mean, and the deviations of intensity and of place in mm."""

from dataclasses import replace

import pytest
import torch

from whence.cli import main
from whence.field import Displacement
from whence.models.draws import joined
from whence.space import Grid, Volume
from whence.trace import Trace
from whence.train.evaluate import row_generator


def drawn(level, shift):
    """A trace whose prediction is ``level`` and whose points come from ``shift`` voxels further along axis 0."""
    grid = Grid.regular((6, 5), (2.0, 3.0))
    field = torch.zeros(1, 2, 6, 5)
    field[:, 0] = shift
    still = Displacement.identity(grid)
    source, image = (Volume(torch.full((1, 1, 6, 5), value), grid) for value in (1.0, level))
    return Trace.build(source, image, Displacement(field, grid), still, method="made")


def test_mean_and_deviations_by_hand(tmp_path):
    found = joined([drawn(1.0, 0.0), drawn(2.0, 1.0), drawn(6.0, -1.0)])
    extras = found.extras
    assert torch.allclose(extras["mean of 3 draws"].tensor, torch.tensor(3.0))
    assert torch.allclose(extras["deviation of the image"].tensor, torch.tensor(7.0).sqrt())
    # One voxel is 2 mm along this axis.
    assert torch.allclose(extras["deviation of the place [mm]"].tensor, torch.tensor(2.0))
    assert torch.equal(found.image.tensor, drawn(1.0, 0.0).image.tensor)
    assert found.info["draws"] == 3
    kept = Trace.load(found.save(tmp_path / "trace"))
    assert {name: float(extra.tensor.mean()) for name, extra in kept.extras.items()} == pytest.approx(
        {name: float(extra.tensor.mean()) for name, extra in extras.items()}
    )
    assert (tmp_path / "trace" / "extra_deviation_of_the_place_mm.nii.gz").is_file()
    with pytest.raises(ValueError, match="two draws"):
        joined([drawn(1.0, 0.0)])


def test_what_each_brought_about_where_they_saw_different_things():
    seen = [("a", 1.0), ("b", 2.0), ("a", 6.0)]
    draws = [replace(drawn(level, 0.0), extras={"cases": [{"case": name}]}) for name, level in seen]
    extras = joined(draws).extras
    assert torch.allclose(extras["draws 1, 3 less the mean"].tensor, torch.tensor(0.5))
    assert torch.allclose(extras["draw 2 less the mean"].tensor, torch.tensor(-1.0))
    assert not any("less the mean" in name for name in joined(draws[::2]).extras)


def test_the_command_draws_as_often_as_asked(tmp_path, capsys):
    pytest.importorskip("diffusers")
    data = tmp_path / "data"
    assert main(["phantom", "domains", "--anatomy", "heart", "--n", "16", "--size", "32", "--out", str(data)]) == 0
    small = [
        "--features=[8,16]",
        "--spatial_features=[8,16]",
        "--solver_steps=2",
        "--steps=2",
        "--batch_size=2",
        "--answer=epsilon",
    ]
    run, image = str(tmp_path / "run"), str(data / "case0000" / "source.nii.gz")
    settings = ["--data", str(data / "pairs.csv"), "--out", run, "--config", "plasticine-cpu", *small, "--threads=1"]
    assert main(["fit", "plasticine", *settings, "--accelerator=cpu"]) == 0
    assert main(["predict", run, image, "--out", str(tmp_path / "three"), "--samples", "3"]) == 0
    assert main(["predict", run, image, "--out", str(tmp_path / "one")]) == 0
    several, single = (Trace.load(tmp_path / name) for name in ("three", "one"))
    assert torch.equal(several.image.tensor, single.image.tensor)
    assert float(several.extras["deviation of the image"].tensor.mean()) > 0
    assert main(["predict", run, image, "--out", str(tmp_path / "none"), "--samples", "0"]) == 2
    assert "expected 1 sample or more; got 0" in capsys.readouterr().err


def test_a_seed_and_a_name_make_a_generator_of_their_own():
    first = {torch.rand(1, generator=row_generator(seed, name)).item() for seed in range(3) for name in ("a", "b")}
    again = torch.rand(1, generator=row_generator(0, "a")).item()
    assert len(first) == 6
    assert again in first
