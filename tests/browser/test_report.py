"""The page in a real browser: its partners are the trace's own, its switches do what they say."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from made_traces import GRIDS, make_trace

from whence.io import read_points
from whence.report import write_report
from whence.space import Grid

# A partner may differ from the trace's by the page's quantisation of the field (see report/encoding.py):
# half of 0.005 voxel along each axis, and float32 in torch's own sampling.
TOLERANCE_MM = 0.02


def picture(opened, panel):
    canvas = opened.page.locator(f"[data-panel={panel}] .view")
    return hashlib.sha256(canvas.screenshot()).hexdigest()


def pixels(opened, panel):
    """The pixels of the image canvas, without the marks."""
    return opened.page.evaluate(
        """(panel) => {
            const canvas = document.querySelector(`[data-panel=${panel}] canvas.image`);
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let hash = 0;
            for (const value of data) hash = (hash * 31 + value) | 0;
            return hash;
        }""",
        panel,
    )


def shown(opened, selector):
    """The coordinates written on the page, as numbers."""
    text = opened.page.locator(selector).inner_text()
    return np.array([float(part.replace("\u2212", "-")) for part in text.split(",")])


def inside_both(trace, side, rng, count):
    """Random points of one side whose partners lie inside the other image."""
    grid, other = (
        (trace.image.grid, trace.source.grid) if side == "prediction" else (trace.source.grid, trace.image.grid)
    )
    shape = np.asarray(grid.shape)
    points = grid.to_world(rng.uniform(0.15, 0.85, (60, grid.dims)) * (shape - 1))
    partners = trace.whence(points) if side == "prediction" else trace.whither(points)
    return points[other.contains(partners)][:count]


@pytest.mark.parametrize("name", GRIDS)
def test_partner_of_any_point_is_the_traces_own(open_page, reports, name):
    path, trace = reports[name]
    opened = open_page(path, trace)
    for side in ("prediction", "source"):
        compare_partners(opened, trace, side)


def compare_partners(opened, trace, side):
    grid = trace.image.grid if side == "prediction" else trace.source.grid
    shape = np.asarray(grid.shape)
    # Also beyond the outer voxel centres, where the field continues with its border value.
    points = grid.to_world(np.random.default_rng(5).uniform(-0.05, 1.05, (300, grid.dims)) * (shape - 1))
    script = "([side, points]) => points.map((mm) => whence.partner({side, mm}))"
    answers = opened.page.evaluate(script, [side, points.tolist()])
    # The page follows the inverse that is stored, which lies a fraction of a voxel from the exact ``whither``.
    expected = trace.whence(points) if side == "prediction" else trace.inverse(points)
    got = np.array([a["mm"][: grid.dims] for a in answers])
    assert np.abs(got - expected).max() < TOLERANCE_MM
    moved = np.linalg.norm(expected - points, axis=1)
    assert np.allclose([a["moved"] for a in answers], moved, atol=2 * TOLERANCE_MM)
    other = trace.source.grid if side == "prediction" else trace.image.grid
    clear = np.abs(other.to_voxel(expected) + 0.5).min(axis=1) > 0.05
    clear &= np.abs(other.to_voxel(expected) - np.asarray(other.shape) + 0.5).min(axis=1) > 0.05
    assert [a["inside"] for a in np.array(answers)[clear]] == other.contains(expected)[clear].tolist()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("side", ["prediction", "source"])
def test_click_shows_the_partner(open_page, reports, name, side):
    path, trace = reports[name]
    opened = open_page(path, trace)
    planes = ["axial", "coronal", "sagittal"] if trace.image.dims == 3 else ["axial"]
    other = "source" if side == "prediction" else "prediction"
    points = inside_both(trace, side, np.random.default_rng(3), len(planes))
    assert len(points) == len(planes)
    for plane, point in zip(planes, points, strict=True):
        if trace.image.dims == 3:
            opened.page.click(f"[data-plane={plane}]")
            normal = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
            opened.page.evaluate("([s, mm]) => whence.setSlice(s, mm)", [side, float(point[normal])])
            point[normal] = opened.state(f"slice.{side}")
        opened.drawn()
        x, y = opened.client(side, point)
        opened.page.mouse.click(x, y)
        opened.drawn()
        clicked = opened.page.evaluate("([p, x, y]) => whence.toMillimetres(p, x, y)", [side, x, y])[: trace.image.dims]
        # The mouse meets the point that the layout promises, up to the rounding of a click's position.
        pixel = opened.page.evaluate(
            "([p]) => Math.hypot(...[0, 1, 2].map((d) => "
            "whence.toMillimetres(p, 1, 0)[d] - whence.toMillimetres(p, 0, 0)[d]))",
            [side],
        )
        assert np.abs(clicked - point).max() <= pixel
        pin = opened.state("pins.at(-1)")
        assert pin["side"] == side
        own = np.array(pin[side][: trace.image.dims])
        assert np.abs(own - point).max() <= pixel
        expected = (trace.whence if side == "prediction" else trace.whither)(own[None])[0]
        assert np.abs(np.array(pin[other][: trace.image.dims]) - expected).max() < TOLERANCE_MM
        # On the page, to a tenth of a mm.
        assert np.abs(shown(opened, "#point .partner .mm") - expected).max() < 0.051 + TOLERANCE_MM
        distance = float(np.linalg.norm(expected - own))
        written = opened.page.locator("#point .moved strong").inner_text()
        assert abs(float(written.removesuffix(" mm")) - distance) < 0.051 + TOLERANCE_MM
        if trace.image.dims == 3:
            grid = trace.source.grid if side == "prediction" else trace.image.grid
            followed = opened.state(f"slice.{other}")
            assert abs(followed - expected[normal]) <= grid.spacing.max()
    assert opened.page.locator("#pins tr").count() == len(planes)
    assert opened.complaints == []


def test_frames(open_page, reports):
    path, trace = reports["plain 3D"]
    opened = open_page(path, trace)
    opened.page.evaluate("whence.pin({side: 'prediction', mm: [4, -7, 3]})")
    opened.drawn()
    ras = shown(opened, "#point .own .mm")
    assert ras.tolist() == [4, -7, 3]
    opened.page.click("[data-frame=LPS]")
    opened.drawn()
    assert shown(opened, "#point .own .mm").tolist() == [-4, 7, 3]
    assert "RAS 4.0, \u22127.0, 3.0 mm" in opened.page.locator("#point .own .mm").get_attribute("title")


def test_patient_right_is_left_and_front_is_up(open_page, reports):
    path, trace = reports["oblique 3D"]
    opened = open_page(path, trace)
    for plane, toward, screen in [
        ("axial", (1, 0, 0), (-1, 0)),
        ("axial", (0, 1, 0), (0, -1)),
        ("coronal", (1, 0, 0), (-1, 0)),
        ("coronal", (0, 0, 1), (0, -1)),
        ("sagittal", (0, 1, 0), (-1, 0)),
        ("sagittal", (0, 0, 1), (0, -1)),
    ]:
        opened.page.evaluate("(plane) => whence.setPlane(plane)", plane)
        for panel in ("source", "prediction"):
            here, there = np.array(opened.client(panel, (0, 0, 0))), np.array(opened.client(panel, toward))
            step = there - here
            assert np.allclose(step / np.linalg.norm(step), screen)
    sizes = [
        np.linalg.norm(np.subtract(opened.client("source", p), opened.client("source", (0, 0, 0))))
        for p in ((0, 1, 0), (0, 0, 1))
    ]
    assert np.allclose(sizes[0], sizes[1])


def test_image_is_where_the_coordinates_say(open_page, tmp_path):
    grid = Grid.regular((48, 40), (1.0, 1.7), centred=True)
    trace = make_trace(grid, grid)
    spot = np.array([30, 9])
    trace.source.tensor.fill_(0)
    trace.source.tensor[0, 0, 29:32, 8:11] = 1000
    trace.save(tmp_path / "t")
    opened = open_page(write_report(tmp_path / "t"))
    x, y = opened.client("source", grid.to_world(spot))
    value = """([x, y]) => {
        const canvas = document.querySelector("[data-panel=source] canvas.image");
        const box = canvas.getBoundingClientRect();
        return canvas.getContext("2d").getImageData(Math.floor(x - box.left), Math.floor(y - box.top), 1, 1).data[0];
    }"""
    assert opened.page.evaluate(value, [x, y]) > 200
    assert opened.page.evaluate(value, [x + 60, y]) < 30
    assert opened.page.evaluate(value, [x, y + 60]) < 30


def test_overlays_change_the_picture(open_page, reports):
    path, trace = reports["oblique 3D"]
    opened = open_page(path, trace)
    for number in range(1, 7):
        before = picture(opened, "prediction")
        opened.page.keyboard.press(str(number))
        opened.drawn()
        switched = picture(opened, "prediction")
        assert switched != before, number
        box = opened.page.locator(".overlay input[type=checkbox]").nth(number - 1)
        assert box.is_checked()
        opened.page.locator(".overlay input[type=range]").nth(number - 1).fill("0.2")
        opened.drawn()
        assert picture(opened, "prediction") not in (before, switched), number
        box.click()
        opened.drawn()
        assert picture(opened, "prediction") == before, number


def test_labels_lie_on_prediction_and_target_with_a_legend(open_page, tmp_path):
    source_grid, grid = GRIDS["plain 2D"]
    make_trace(source_grid, grid, label_names={"7": "tumour"}).save(tmp_path / "t")
    opened = open_page(write_report(tmp_path / "t"))
    before = {panel: pixels(opened, panel) for panel in ("source", "prediction", "third")}
    opened.page.keyboard.press("6")
    opened.drawn()
    assert pixels(opened, "source") == before["source"]
    assert pixels(opened, "prediction") != before["prediction"]
    assert pixels(opened, "third") != before["third"]
    chip = opened.page.locator("#legend-labels .chip")
    assert chip.inner_text() == "tumour"
    chip.click()
    opened.drawn()
    assert pixels(opened, "prediction") == before["prediction"]


def test_slices_blend_and_window(open_page, reports):
    path, trace = reports["plain 3D"]
    opened = open_page(path, trace)
    before = {panel: pixels(opened, panel) for panel in ("source", "prediction")}
    place = opened.state("slice.prediction")
    slider = opened.page.locator("[data-panel=prediction] .slice input")
    slider.fill(str(int(slider.input_value()) + 6))
    opened.drawn()
    assert opened.state("slice.prediction") == pytest.approx(place + 6 * 1.5)
    assert all(pixels(opened, panel) != before[panel] for panel in before)
    opened.page.locator("header h1").click()
    for _ in range(6):
        opened.page.keyboard.press("ArrowDown")
    opened.drawn()
    assert opened.state("slice.prediction") == pytest.approx(place)
    assert pixels(opened, "prediction") == before["prediction"]

    looks = {before["prediction"]}
    for blend in ("0", "0.5", "1", "1.5"):
        opened.page.locator("#blend").fill(blend)
        opened.drawn()
        looks.add(pixels(opened, "prediction"))
    assert len(looks) == 5
    opened.page.click("[data-blend='2']")
    opened.page.locator("#width").fill("0.5")
    opened.drawn()
    assert pixels(opened, "prediction") != before["prediction"]
    opened.page.click("#reset")
    opened.drawn()
    assert pixels(opened, "prediction") == before["prediction"]


def test_no_source_and_outside_are_said(open_page, reports, tmp_path):
    path, trace = reports["plain 2D"]
    opened = open_page(path, trace)
    hole = trace.image.grid.to_world(np.asarray(trace.image.grid.shape) * 0.71)
    opened.page.mouse.move(*opened.client("prediction", hole))
    opened.drawn()
    assert opened.page.locator("#point .warning").inner_text() == "little or no source: novelty 0.83"
    assert opened.state("pins.length") == 0

    small = Grid.regular((20, 20), 1.0, centred=True)
    make_trace(small, Grid.regular((60, 60), 1.0, centred=True)).save(tmp_path / "t")
    opened = open_page(write_report(tmp_path / "t"))
    opened.page.mouse.click(*opened.client("prediction", (-25, 25)))
    opened.drawn()
    assert opened.page.locator("#point .warning").inner_text() == "outside the source's field of view"
    count = opened.state("pins.length")
    opened.page.mouse.click(*opened.client("source", (-28, 0)))
    assert opened.state("pins.length") == count  # not a point of the source image


def test_target_is_clicked_as_the_prediction(open_page, reports):
    path, trace = reports["oblique 2D"]
    opened = open_page(path, trace)
    point = trace.image.grid.centre
    opened.page.mouse.click(*opened.client("third", point))
    assert opened.state("pins.at(-1).side") == "prediction"
    assert np.abs(np.array(opened.state("pins.at(-1).source"))[:2] - trace.whence(point[None])[0]).max() < 1.5


def test_pins_as_csv_and_removal(open_page, reports, tmp_path):
    path, trace = reports["plain 3D"]
    opened = open_page(path, trace)
    points = inside_both(trace, "prediction", np.random.default_rng(8), 3)
    for point in points:
        opened.page.evaluate("(mm) => whence.pin({side: 'prediction', mm})", point.tolist())
    opened.drawn()
    with opened.page.expect_download() as waiting:
        opened.page.click("#save")
    waiting.value.save_as(tmp_path / "pins.csv")
    # A points file as `whence apply --points` reads them.
    found = read_points(tmp_path / "pins.csv")
    assert found.labels == ("P1", "P2", "P3")
    assert np.allclose(found.coordinates, points, atol=1e-3)
    with (tmp_path / "pins.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sources = np.array([[float(row[f"source_{axis}"]) for axis in "xyz"] for row in rows])
    assert np.allclose(sources, trace.whence(points), atol=TOLERANCE_MM)
    opened.page.locator("#pins button[aria-label='Remove pin 2']").click()
    opened.drawn()
    assert opened.state("pins.map((pin) => pin.number)") == [1, 3]


def test_nothing_is_asked_of_the_network(open_page, reports):
    path, trace = reports["oblique 3D"]
    opened = open_page(path, trace)
    for key in ("1", "2", "3", "4", "5", "6", "c", "s", "a", "ArrowUp"):
        opened.page.keyboard.press(key)
    opened.drawn()
    assert [url for url in opened.requests if not url.startswith(("file://", "data:"))] == []
    assert opened.complaints == []


def test_several_cases_metrics_and_a_hostile_name(open_page, tmp_path):
    grid = Grid.regular((32, 32), 2.0, centred=True)
    hostile = "</script><b id=evil>&\u2028"
    for seed, name in enumerate(("one", hostile)):
        trace = make_trace(grid, grid, seed, name, kind="recovered" if seed else "predicted", remark="<img src=x>")
        trace.save(tmp_path / "cases" / f"c{seed}")
    (tmp_path / "metrics.csv").write_text("id,tre,tre_nothing\none,1.25,3.5\nc1,2.5,nan\n")
    (tmp_path / "summary.json").write_text(
        '{"title": "<i>T</i>", "metrics": [{"name": "tre", "label": "TRE", "unit": "mm", "better": "lower",'
        '"model": {"mean": 1.5, "sd": 0.5, "n": 9}, "nothing": {"mean": 3.0, "sd": 1.0, "n": 9}}]}'
    )
    opened = open_page(write_report(tmp_path))
    body = opened.page.locator("#metrics-body").inner_text()
    for part in ("TRE", "1.50 ± 0.50", "3.00 ± 1.00", "\u22121.50", "better", "1.25", "/ 3.50"):
        assert part in body, part
    assert opened.page.locator("h1").inner_text() == "<i>T</i>"
    opened.page.select_option("#case", "1")
    opened.page.locator("#kind[data-kind=recovered]").wait_for()
    opened.drawn()
    assert "2.50" in opened.page.locator("#metrics-body").inner_text()
    assert opened.page.locator("#kind").inner_text() == "field recovered by registration"
    assert opened.page.locator("#evil, #notes img, h1 i").count() == 0
    assert hostile[:20] in opened.page.locator("#case option").nth(1).inner_text()
    assert opened.complaints == []


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_fits_the_screen(open_page, reports, width, height):
    path, trace = reports["plain 3D"]
    opened = open_page(path, trace, width, height)
    size = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [width, height]
    assert "not a medical device" in opened.page.locator("footer").inner_text()


def test_a_registration_is_nobodys_prediction(open_page, tmp_path):
    grid = Grid.regular((24, 20), (2.0, 2.0))
    trace = make_trace(grid, grid, 0, "pair", kind="registered")
    trace.save(tmp_path / "pair")
    opened = open_page(write_report(tmp_path / "pair"), trace)
    page = opened.page
    page.locator("#kind[data-kind=registered]").wait_for()
    assert page.locator("h1").inner_text() == "Registration"
    assert page.locator("[data-panel=source] figcaption").inner_text() == "Moving"
    assert page.locator("#shown").inner_text() == "Fixed"
    assert page.locator(".blend button").all_inner_texts() == ["moving", "fixed"]
    page.locator("[data-panel=source] canvas.marks").hover()
    assert page.locator("#point .what").all_inner_texts()[:2] == ["Moving", "went to fixed"]
