"""What goes into the page comes out of it again, and what cannot is said in one sentence."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest
import torch

from whence.errors import InputError
from whence.field import Displacement, exp
from whence.report import write_report
from whence.report.cases import find_cases
from whence.report.detail import coarser, field_error, shrink_field, shrink_image, shrink_labels
from whence.report.encoding import (
    Blocks,
    encode_field,
    encode_image,
    encode_labels,
    placed,
    planes16,
    quantise_field,
    unplanes16,
)
from whence.report.figures import case_figure, grid_figure
from whence.report.page import safe_json
from whence.space import Grid, Volume
from whence.trace import Trace


def make_trace(shape=(24, 20), seed=0, **info):
    rng = np.random.default_rng(seed)
    grid = Grid.regular(shape, 1.5, centred=True)
    axes = np.meshgrid(*[np.linspace(0, 3, n) for n in shape], indexing="ij")
    waves = np.stack([1.5 * sum(np.sin(a + rng.uniform(0, 6)) for a in axes) for _ in axes])
    u, v = exp(Displacement(torch.from_numpy(waves.astype(np.float32))[None], grid))
    image = torch.from_numpy(rng.normal(100, 30, shape).astype(np.float32))[None, None]
    return Trace.build(Volume(image, grid), Volume(image * 0.9, grid), u, v, **{"method": "made", **info})


def page_of(path):
    text = path.read_text()
    manifest = re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.DOTALL).group(1)
    return text, json.loads(manifest)


@pytest.mark.parametrize("signed", [True, False])
def test_sixteen_bits_come_back(signed):
    values = np.random.default_rng(0).integers(-32768 if signed else 0, 32767 if signed else 65535, 999, endpoint=True)
    assert np.array_equal(unplanes16(planes16(values), signed), values)


@pytest.mark.parametrize("bits", [8, 16])
def test_images_come_back_within_half_a_step(bits):
    rng = np.random.default_rng(1)
    grid = Grid.regular((5, 6, 7))
    values = rng.normal(0, 50, (1, 2, 5, 6, 7)).astype(np.float32)
    values[0, 0, 0, 0, 0] = np.nan
    blocks = Blocks()
    entry = encode_image(blocks, "a", Volume(torch.from_numpy(values), grid), (-100.0, 100.0), bits)
    raw = gzip.decompress(base64.b64decode(blocks.texts["a"]))
    codes = np.frombuffer(raw, np.uint8) if bits == 8 else unplanes16(raw, signed=False)
    back = codes.reshape(values.shape[1:]) * entry["scale"] + entry["offset"]
    expected = np.clip(np.nan_to_num(values[0], nan=-100), -100, 100)
    # Half a step, and the rounding of float32.
    assert np.abs(back - expected).max() <= 200 / (2**bits - 1) / 2 + 1e-4
    assert entry["channels"] == 2


def test_fields_come_back_within_half_a_step():
    displacement = make_trace((12, 10, 8)).displacement
    blocks = Blocks()
    entry = encode_field(blocks, "u", displacement)
    codes = unplanes16(gzip.decompress(base64.b64decode(blocks.texts["u"])), signed=True)
    back = codes.reshape(3, 12, 10, 8) * entry["scale"]
    assert np.abs(back - displacement.to_world()[0].numpy()).max() <= 0.0025 * 1.5 + 1e-5
    assert field_error(displacement, entry["scale"], displacement) <= 0.0025 * 1.5 * 3**0.5 + 1e-9


def test_a_far_field_keeps_its_range():
    grid = Grid.regular((4, 4), 0.1)
    displacement = Displacement.from_world(torch.full((1, 2, 4, 4), 500.0), grid)
    codes, quantum = quantise_field(displacement)
    assert np.allclose(codes * quantum, 500, atol=0.02)


@pytest.mark.parametrize("values", [[0, 3, 900, -2], [0, 0, 0, 0], [5, 5, 5, 5]])
def test_labels_come_back(values):
    labels = torch.tensor(values, dtype=torch.int32).reshape(1, 1, 2, 2)
    blocks = Blocks()
    _, kept = encode_labels(blocks, "l", Volume(labels, Grid.regular((2, 2))))
    indices = np.frombuffer(gzip.decompress(base64.b64decode(blocks.texts["l"])), np.uint8)
    assert [[0, *kept][i] for i in indices] == values


def test_a_flat_grid_is_one_slice():
    grid = Grid((4, 5), np.array([[0.0, -2, 7], [1.5, 0, -3], [0, 0, 1]]))
    entry = placed(grid)
    affine = np.array(entry["affine"]).reshape(3, 4)
    assert entry["shape"] == [4, 5, 1]
    assert np.allclose(affine @ [2, 3, 0, 1], [*grid.to_world(np.array([2, 3])), 0])


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 7)])
def test_coarser_images_stay_in_place(shape):
    affine = np.eye(len(shape) + 1)
    affine[:2, :2] = [[0, -1.5], [1.2, 0.1]]
    affine[0, -1] = 11
    grid = Grid(shape, affine)
    # A ramp of the world: means of full blocks are its values at their middles.
    world = grid.to_world(
        np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, grid.dims)
    )
    ramp = Volume(
        torch.from_numpy((world @ np.arange(1, grid.dims + 1)).reshape(1, 1, *shape).astype(np.float32)), grid
    )
    small = shrink_image(ramp, 2)
    inner = np.array([2] * grid.dims)
    expected = coarser(grid, 2).to_world(inner) @ np.arange(1, grid.dims + 1)
    assert small.numpy()[tuple(inner)] == pytest.approx(expected, abs=1e-4)
    assert small.grid.shape == tuple(-(-n // 2) for n in shape)
    labels = shrink_labels(Volume(ramp.tensor.round().int(), grid), 2)
    assert labels.grid == small.grid


def test_coarser_fields_state_their_error():
    displacement = make_trace((24, 20, 16)).displacement
    small = shrink_field(displacement, 2)
    error = field_error(small, 0.0, displacement)
    points = displacement.grid.to_world(np.random.default_rng(2).uniform(1, 14, (200, 3)))
    assert 0 < np.linalg.norm(small(points) - displacement(points), axis=1).max() <= error


def test_page_is_whole_and_keeps_within_its_size(tmp_path):
    for number in range(4):
        make_trace((48, 48), number, id=f"case {number}").save(tmp_path / "cases" / f"c{number}")
    full = write_report(tmp_path)
    _, page = page_of(full)
    assert [case["name"] for case in page["cases"]] == [f"case {n}" for n in range(4)]
    assert page["total"] == 4
    size = full.stat().st_size / 1e6
    one = write_report(tmp_path / "cases" / "c0").stat().st_size / 1e6
    per_case = (size - one) / 3

    few = write_report(tmp_path, tmp_path / "few.html", max_megabytes=one + 1.5 * per_case)
    assert few.stat().st_size / 1e6 < one + 1.5 * per_case
    _, page = page_of(few)
    assert len(page["cases"]) == 2
    assert page["total"] == 4
    assert page["cases"][0]["detail"] == {"image": 1, "field": 1}

    small = write_report(tmp_path, tmp_path / "coarse.html", max_megabytes=one - 0.4 * per_case)
    _, page = page_of(small)
    assert page["cases"][0]["detail"]["image"] > 1
    assert page["cases"][0]["precision_mm"] < 1
    assert small.stat().st_size / 1e6 < one - 0.4 * per_case

    with pytest.raises(InputError, match=r"c0, needs .* MB even at the coarsest"):
        write_report(tmp_path, tmp_path / "none.html", max_megabytes=0.001)
    assert not (tmp_path / "none.html").exists()


def test_page_needs_nothing_else(tmp_path):
    make_trace(id="x").save(tmp_path / "t")
    text, page = page_of(write_report(tmp_path / "t"))
    assert page["cases"][0]["kind"] == "predicted"
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?!data:)\w", text.split("<script>")[0])
    assert "://" not in text.split("<body")[0]


@pytest.mark.parametrize("hostile", ["</script><b>", "<!--<script>", "a&b", "\u2028", '"'])
def test_hostile_text_does_not_leave_its_place(tmp_path, hostile):
    assert json.loads(safe_json({"a": hostile})) == {"a": hostile}
    assert not set(safe_json({"a": hostile})) & set("<>&\u2028")
    make_trace(id=hostile, method=hostile).save(tmp_path / "t")
    text, page = page_of(write_report(tmp_path / "t"))
    assert page["cases"][0]["name"] == hostile
    assert "</script><b>" not in text


def test_extras_are_shown_without_knowing_the_method(tmp_path):
    trace = make_trace(extras={"doubt": Volume(torch.rand(1, 1, 24, 20), Grid.regular((24, 20), 1.5, centred=True)),
                               "cases": [{"case": "a", "overlap": float("nan")}]})  # fmt: skip
    trace.save(tmp_path / "t")
    case = page_of(write_report(tmp_path / "t"))[1]["cases"][0]
    assert [extra["name"] for extra in case["extras"]] == ["doubt"]
    assert case["tables"] == [{"name": "cases", "rows": [{"case": "a", "overlap": None}]}]


def test_cases_are_found_at_most_two_folders_down(tmp_path):
    for name in ("a", "cases/b", "x/y/z"):
        make_trace().save(tmp_path / name)
    assert sorted(find_cases(tmp_path).folders) == ["a", "b"]
    assert list(find_cases(tmp_path / "a").folders) == ["a"]


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"found no trace\.json"):
        write_report(tmp_path)
    make_trace().save(tmp_path / "t")
    (tmp_path / "metrics.csv").write_text("name,ssim\na,1\n")
    with pytest.raises(InputError, match="a column 'id'"):
        write_report(tmp_path)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "summary.json").write_text('{"metrics": {"ssim": 1}}')
    with pytest.raises(InputError, match=r"summary\.json"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        write_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    old = tmp_path / "report.html"
    old.write_text("old")
    (tmp_path / "t" / "novelty.nii.gz").unlink()
    with pytest.raises(InputError, match=r"novelty\.nii\.gz"):
        write_report(tmp_path)
    assert old.read_text() == "old"


@pytest.mark.parametrize("shape", [(24, 20), (18, 20, 16)])
def test_figures_show_every_part(shape):
    trace = make_trace(shape, id="case")
    figure = case_figure(trace)
    assert len([axis for axis in figure.axes if axis.images]) >= 4
    assert grid_figure(trace).axes
    figure.clear()
