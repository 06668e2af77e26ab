"""Pictures of the docs, made anew: python docs/make_figures.py DEMO (the folder of a finished `whence demo`)
[RUN TABLE] (a finished run of imse and its multimodal pairs.csv) [BENCH] (the folder of `whence bench plasticine`)
[PHANTOM PEOPLE] (folders of `whence atlas --sweep` along age, of the phantom's and of the ten people's slices)."""

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


def multimodal() -> None:
    """Cases of the multimodal phantom: one head in three modalities, moved, its labels and displacement."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data.phantom.multimodal import make_case

    figure, axes = plt.subplots(4, 7, figsize=(15, 8.8), facecolor="black")
    titles = ("T1", "T2", "CT", "moved, T2", "moved, T1", "labels", "displacement [mm]")
    for index, row in enumerate(axes):
        case, ct = make_case(0, index, 128, 2), make_case(0, index, 128, 2, source="ct")
        images = (case.source, case.counterpart, ct.source, case.target, case.registered)
        shown = [(image.numpy(), "gray", None) for image in images]
        shown += [
            (case.source_labels.numpy(), "nipy_spectral", 8),
            (case.displacement.magnitude()[0, 0], "viridis", 20),
        ]
        for axis, title, (image, colours, top) in zip(row, titles, shown, strict=True):
            drawn = axis.imshow(image.T, origin="lower", cmap=colours, vmin=0, vmax=top)
            axis.axis("off")
            if index == 0:
                axis.set_title(title, color="white", fontsize=10)
        figure.colorbar(drawn, ax=row[-1], fraction=0.04).ax.tick_params(colors="white", labelsize=7)
    figure.tight_layout()
    figure.savefig(IMAGES / "multimodal.png", dpi=70)


def cohort() -> None:
    """The general atlas and the true means of four ages, and people of the cohort phantom."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data.phantom.cohort import GENERAL, make_case, make_reference

    references = {"general atlas": GENERAL} | {f"mean of {age} years": f"mean_{age}" for age in (18, 42, 66, 90)}
    shown = {title: make_reference(name, 96, 2) for title, name in references.items()}
    for case in sorted((make_case(0, index, 96, 2) for index in range(5)), key=lambda case: case.conditions["age"]):
        shown[f"{case.conditions['age']:.0f} years, {case.conditions['ventricular_volume']:.1f} ml"] = case
    figure, axes = plt.subplots(2, 5, figsize=(11, 5.8), facecolor="black")
    for axis, (title, case) in zip(axes.flat, shown.items(), strict=True):
        image = case.target.numpy()
        axis.imshow(image.T[:, ::-1], origin="lower", cmap="gray", vmin=0, vmax=np.quantile(image, 0.995))
        axis.set_title(title, color="white", fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(IMAGES / "cohort.png", dpi=70)


def domains() -> None:
    """A person of each domain phantom, the partner of known correspondence, another of the target's population."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data.phantom.domains import ANATOMIES, make_case
    from whence.field import warp

    figure, axes = plt.subplots(len(ANATOMIES), 7, figsize=(15, 2.3 * len(ANATOMIES)), facecolor="black")
    titles = ("source", "labels", "partner", "labels", "source, carried", "displacement [mm]", "another of the target")
    for index, (row, anatomy) in enumerate(zip(axes, ANATOMIES, strict=True)):
        case, other = make_case(0, 4, 128, 2, anatomy=anatomy), make_case(0, 5, 128, 2, anatomy=anatomy)
        still, moved = (labels.numpy().astype(float) for labels in (case.source_labels, case.target_labels))
        carried = warp(case.source, case.displacement).numpy()
        length = case.displacement.magnitude()[0, 0].numpy()
        images = (case.source.numpy(), still, case.target.numpy(), moved, carried, length, other.source.numpy())
        for axis, title, image in zip(row, titles, images, strict=True):
            colours = {"labels": "nipy_spectral", "displacement [mm]": "viridis"}.get(title, "gray")
            drawn = axis.imshow(image.T, origin="lower", cmap=colours, interpolation="nearest")
            axis.axis("off")
            if index == 0:
                axis.set_title(title, color="white", fontsize=10)
            if colours == "viridis":
                figure.colorbar(drawn, ax=axis, fraction=0.04).ax.tick_params(colors="white", labelsize=7)
    figure.tight_layout()
    figure.savefig(IMAGES / "domains.png", dpi=70)


def evaluator(run: Path, table: Path) -> None:
    """Error maps of a trained IMSE on held-out heads of the multimodal phantom, T1 to T2."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.bench.error_maps import local_motion
    from whence.data import read_pairs
    from whence.field import warp
    from whence.io import read
    from whence.models.evaluator import spatial_error
    from whence.train.run import load

    judge = load(run)
    rows = read_pairs(table).split("test").rows[:3]
    figure, axes = plt.subplots(len(rows), 7, figsize=(16, 2.4 * len(rows)), facecolor="black")
    titles = ("T1", "T2", "map, aligned", "local displacement", "map of it", "T2, moved", "map, apart")
    for index, (row, files) in enumerate(zip(axes, rows, strict=True)):
        source, aligned, target = (read(files.path(c)) for c in ("source", "counterpart", "target"))
        motion = local_motion(source.grid, files, index)
        maps = [spatial_error(judge, m, source).map for m in (aligned, warp(aligned, motion), target)]
        motion = source.with_tensor(motion.magnitude())
        images = (source, aligned, maps[0], motion, maps[1], target, maps[2])
        for axis, title, image in zip(row, titles, images, strict=True):
            look = {"cmap": "inferno", "vmin": 0, "vmax": 0.25} if title.startswith("map") else {"cmap": "gray"}
            axis.imshow(image.numpy().T, origin="lower", **({"cmap": "viridis"} if image is motion else look))
            axis.axis("off")
            if index == 0:
                axis.set_title(title, color="white", fontsize=10)
    figure.tight_layout()
    figure.savefig(IMAGES / "imse.png", dpi=70)


def translations(bench: Path) -> None:
    """Held-out people of the domain phantoms, translated by Plasticine with the labels that a segmenter found."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data import read_pairs
    from whence.io import read, read_labels
    from whence.train.run import load

    figure, axes = plt.subplots(4, 7, figsize=(16, 10), facecolor="black")
    titles = ("source", "its labels", "prediction", "the partner", "labels, carried", "source, carried")
    titles = (*titles, "displacement [mm]")
    for line, axis_row in enumerate(axes):
        (data,) = bench.glob(f"data/*/{'oct' if line < 2 else 'brain'}_400_96")
        row = read_pairs(data / "data" / "pairs.csv", columns=("source",)).split("test").domain("source").rows[line * 5]
        source, labels = read(row.path("source")), read_labels(data / "found" / f"{row.id}.nii.gz")
        trace = load(data / "plasticine_labels").predict(source, labels=labels)
        moved = trace.image.with_tensor(trace.displacement.magnitude())
        partner = read(row.path("target"))
        images = (source, labels, trace.image, partner, trace.carry(labels), trace.warped_source, moved)
        for axis, title, image in zip(axis_row, titles, images, strict=True):
            colours = {"its labels": "turbo", "labels, carried": "turbo", "displacement [mm]": "viridis"}
            drawn = axis.imshow(image.numpy().T, origin="lower", cmap=colours.get(title, "gray"))
            axis.axis("off")
            if line == 0:
                axis.set_title(title, color="white", fontsize=10)
            if title.startswith("displacement"):
                figure.colorbar(drawn, ax=axis, fraction=0.04).ax.tick_params(colors="white", labelsize=7)
    figure.tight_layout()
    figure.savefig(IMAGES / "plasticine_cases.png", dpi=70)


def atlases(sweep: Path, ages: tuple[int, ...], out: str, truth: bool) -> None:
    """Atlases of a sweep over age and their growth, with the phantom's true means below, or people as they are."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from whence.data.phantom.cohort import make_reference
    from whence.field import jacobian_determinant
    from whence.trace import Trace

    traces = {age: Trace.load(sweep / "cases" / f"age_{age}") for age in ages}
    source = next(iter(traces.values())).source
    figure, axes = plt.subplots(2 + truth, 1 + len(ages), figsize=(2.3 * (1 + len(ages)), 2.9 * (2 + truth)))
    pictures = {(0, 0): ("general atlas", source.tensor, "gray", None)}
    for column, (age, trace) in enumerate(traces.items(), start=1):
        pictures[0, column] = (f"{age} years", trace.image.tensor, "gray", None)
        # The field pulls back: what grew is drawn from less.
        growth = -jacobian_determinant(trace.displacement).clamp_min(1e-3).log()
        pictures[1, column] = ("growth, log", growth, "RdBu_r", 0.8)
        if truth:
            mean = make_reference(f"mean_{age}", source.grid.shape[0], 2).target.numpy()
            pictures[2, column] = ("true mean", mean, "gray", None)
    for axis in axes.flat:
        axis.axis("off")
    for (row, column), (title, image, colours, top) in pictures.items():
        plane = np.asarray(image).squeeze().T[:, ::-1]
        drawn = axes[row, column].imshow(
            plane, origin="lower", cmap=colours, vmax=top or np.quantile(plane, 0.999), vmin=-top if top else None
        )
        axes[row, column].set_title(title, fontsize=10)
        if top and column == 1:
            figure.colorbar(drawn, ax=axes[row, 0], fraction=0.08, orientation="horizontal")
    figure.tight_layout()
    figure.savefig(IMAGES / out, dpi=70)


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
    multimodal()
    domains()
    cohort()
    if len(sys.argv) > 1:
        report(Path(sys.argv[1]))
    if len(sys.argv) > 3:
        evaluator(Path(sys.argv[2]), Path(sys.argv[3]))
    if len(sys.argv) > 4:
        translations(Path(sys.argv[4]))
    if len(sys.argv) > 6:
        atlases(Path(sys.argv[5]), (18, 48, 72, 90), "diffdef.png", truth=True)
        atlases(Path(sys.argv[6]), (20, 24, 29, 34), "diffdef_oasis.png", truth=False)
