"""The page of a sweep: what the cases measure, as curves over the value that is swept."""

import json
from dataclasses import replace

import pytest
from made_traces import make_trace

from whence.report import write_report
from whence.space import Grid


def test_curves_follow_the_slider(open_page, tmp_path):
    grid = Grid.regular((32, 32), 2.0, centred=True)
    for age, volume in ((20, 8.0), (40, 10.0), (80, 20.0)):
        extras = {"conditions": [{"age": age}], "volumes [ml]": [{"ventricles": volume, "grey": 100.0}]}
        trace = make_trace(grid, grid, 0, f"age_{age}")
        replace(trace, extras={**trace.extras, **extras}).save(tmp_path / "cases" / f"age_{age}")
    names = ["age_20", "age_40", "age_80"]
    (tmp_path / "summary.json").write_text(
        json.dumps({"cases": names, "sweep": {"name": "age", "values": [20.0, 40.0, 80.0]}})
    )
    opened = open_page(write_report(tmp_path))
    captions = opened.page.locator(".curve figcaption").all_inner_texts()
    # What was asked for is no answer, and has no curve.
    assert len(captions) == 2
    assert captions[0].split() == ["ventricles", "8.00", "8.00", "to", "20.0"]
    points = opened.page.locator(".curve polyline").first.get_attribute("points")
    at = [[float(number) for number in point.split(",")] for point in points.split(" ")]
    (x0, y0), (x1, y1), (x2, y2) = at
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 3, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 6, abs=0.01)
    assert y2 < y0
    opened.page.evaluate("whence.select(2)")
    opened.drawn()
    assert opened.page.locator(".curve figcaption").first.inner_text().split()[1] == "20.0"
    now = opened.page.locator(".curve").first.locator("circle.now")
    assert float(now.get_attribute("cx")) == pytest.approx(x2, abs=0.1)
    assert opened.complaints == []
