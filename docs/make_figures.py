"""Pictures of the docs, made anew: python docs/make_figures.py DEMO (the folder of a finished `whence demo`)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).parent / "img"
CASES = (401, 405, 410, 420)


def phantom() -> None:
    """Cases of the surgery phantom: both dates, the true displacement, the labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data.phantom.surgery import make_case

    figure, axes = plt.subplots(len(CASES), 4, figsize=(10, 2.6 * len(CASES)), facecolor="black")
    titles = ("before surgery", "after surgery", "true displacement [mm]", "labels after")
    for row, index in zip(axes, CASES, strict=True):
        case = make_case(0, index, 128, 2)
        moved = case.displacement.magnitude()[0, 0].numpy()
        shown = (
            (case.source.numpy(), "gray", None),
            (case.target.numpy(), "gray", None),
            (moved, "viridis", 10),
            (case.target_labels.numpy(), "turbo", 5),
        )
        for axis, title, (image, colours, top) in zip(row, titles, shown, strict=True):
            # Radiological: the patient's right on the left of the picture.
            drawn = axis.imshow(image.T[:, ::-1], origin="lower", cmap=colours, vmax=top)
            axis.axis("off")
            if index == CASES[0]:
                axis.set_title(title, color="white", fontsize=10)
            if colours == "viridis":
                figure.colorbar(drawn, ax=axis, fraction=0.04).ax.tick_params(colors="white", labelsize=7)
    figure.tight_layout()
    figure.savefig(IMAGES / "phantom.png", dpi=80)


def _nearest(points: np.ndarray, mask: Path, count: int = 5) -> list[list[float]]:
    """Landmarks nearest to the lesion."""
    from whence.io import read_labels

    lesion = read_labels(mask)
    centre = lesion.grid.to_world(np.argwhere(lesion.numpy() > 0).mean(axis=0))
    order = np.linalg.norm(points - centre, axis=1).argsort()
    # The page speaks of points in 3D; a slice lies at 0.
    return [[*point, 0.0][:3] for point in points[order[:count]].tolist()]


def report(demo: Path) -> None:
    """The demo's page, a few points marked near the lesion of its first case."""
    import shutil

    from playwright.sync_api import sync_playwright

    from whence.io import read_points

    page_file = (demo / "evaluation" / "report.html").resolve()
    case = demo / "data" / sorted(p.name for p in (demo / "evaluation" / "cases").iterdir())[0]
    points = read_points(case / "target_points.csv").coordinates
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(page_file.as_uri())
        page.evaluate("async () => { await window.whence.ready; }")
        for point in _nearest(points, case / "target_mask.nii.gz"):
            page.evaluate("(mm) => window.whence.pin({side: 'prediction', mm})", point)
        page.keyboard.press("1")
        page.wait_for_timeout(500)
        page.screenshot(path=IMAGES / "report.png")
        browser.close()


if __name__ == "__main__":
    phantom()
    if len(sys.argv) > 1:
        report(Path(sys.argv[1]))
