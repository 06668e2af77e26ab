"""A headless browser, and the page of a trace on each kind of grid."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

import pytest
from made_traces import GRIDS, make_trace

from whence.report import write_report
from whence.trace import Trace

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Opened:
    """A page with its trace, and what it asked for or complained of."""

    page: object
    trace: Trace
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def drawn(self) -> None:
        self.page.evaluate("whence.drawn()")

    def client(self, panel: str, mm) -> tuple[float, float]:
        return tuple(self.page.evaluate("([n, p]) => whence.toClient(n, p)", [panel, [float(v) for v in mm]]))

    def state(self, expression: str):
        return self.page.evaluate(f"whence.state.{expression}")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """Paths and traces of a page for every pair of grids."""
    made = {}
    for seed, (name, (source_grid, grid)) in enumerate(GRIDS.items()):
        folder = tmp_path_factory.mktemp("report") / name.replace(" ", "-")
        make_trace(source_grid, grid, seed, name).save(folder)
        made[name] = (write_report(folder), Trace.load(folder))
    return made


@pytest.fixture
def open_page(browser):
    """Opens a page file in a window of its own, shut after the test."""
    pages = []

    def opened(path, trace=None, width=1280, height=800) -> Opened:
        page = browser.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        it = Opened(page, trace)
        page.on("request", lambda request: it.requests.append(request.url))
        page.on("pageerror", lambda error: it.complaints.append(str(error)))
        page.on("console", lambda message: it.complaints.append(message.text) if message.type != "log" else None)
        page.goto(path.resolve().as_uri())
        page.evaluate("whence.ready")
        it.drawn()
        return it

    yield opened
    for page in pages:
        page.close()
