"""The column of one case: doing nothing beside it only where doing nothing has that figure."""

from made_traces import make_trace

from whence.report import write_report
from whence.space import Grid


def test_figures_of_the_trace_stand_alone(open_page, tmp_path):
    grid = Grid.regular((32, 32), 2.0, centred=True)
    make_trace(grid, grid, 0, "one").save(tmp_path / "cases" / "one")
    (tmp_path / "metrics.csv").write_text("id,tre,folding,nothing_tre,nothing_folding\none,1.25,0.5,3.5,0.75\n")
    figure = '{"mean": 1.5, "sd": 0.5, "n": 9}'
    (tmp_path / "summary.json").write_text(
        '{"cases": ["one"], "metrics": ['
        f'{{"name": "tre", "label": "TRE", "unit": "mm", "better": "lower", "model": {figure}, "nothing": {figure}}},'
        f'{{"name": "folding", "label": "Folded", "unit": "", "better": "lower", "model": {figure}, "nothing": null}}'
        "]}"
    )
    opened = open_page(write_report(tmp_path))
    own = opened.page.locator("#metrics-body td.own").all_inner_texts()
    assert "3.5" in own[0]
    assert "0.5" in own[1]
    assert "/" not in own[1]
    assert opened.complaints == []
