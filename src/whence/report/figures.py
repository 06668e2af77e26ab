"""Still figures of a trace, for documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whence.field import Displacement, resample
from whence.metrics.body import body_mask
from whence.space import Grid, Volume
from whence.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUND = "#0a0d12"
INK = "#e3eaf2"


def case_figure(trace: Trace, slice_mm: float | None = None, title: str | None = None) -> Figure:
    """Source, warped source, prediction, target if any, displacement and novelty, side by side.

    Axial, patient right on the left. Of a volume the slice at ``slice_mm`` (superior, RAS mm), or the
    one through the prediction's middle.
    """
    plane = _Plane(trace, slice_mm)
    images = [("source", trace.source), ("warped source", trace.warped_source), ("prediction", trace.image)]
    if trace.target is not None:
        images.append(("target", trace.target))
    figure, axes = _canvas(len(images) + 2, plane.aspect)
    windows = {name: _window(trace, name) for name, _ in images}
    for axis, (name, volume) in zip(axes, images, strict=False):
        plane.show(axis, plane.cut(volume), name, cmap="gray", vmin=windows[name][0], vmax=windows[name][1])
    ground = plane.cut(trace.image)
    body = plane.cut(Volume(body_mask(trace.image.tensor).float(), trace.image.grid))
    moved = Volume(trace.displacement.magnitude(), trace.displacement.grid)
    low, high = windows["prediction"]
    for axis, name, volume, cmap, top in (
        (axes[-2], "displacement, mm", moved, "viridis", None),
        (axes[-1], "novelty", trace.novelty, "inferno", 1.0),
    ):
        plane.show(axis, ground, name, cmap="gray", vmin=low, vmax=high)
        values = plane.cut(volume)
        drawn = plane.show(axis, values, name, cmap=cmap, vmin=0, vmax=top, alpha=np.clip(0.75 * body, 0, 1))
        _colour_bar(figure, axis, drawn)
    plane.arrows(axes[-2], body)
    plane.scale_bar(axes[0])
    if title:
        figure.suptitle(title, color=INK, fontsize=11)
    return figure


def grid_figure(trace: Trace, slice_mm: float | None = None, step_mm: float = 10.0) -> Figure:
    """A regular grid on the source, and the same grid carried to the prediction."""
    plane = _Plane(trace, slice_mm)
    figure, axes = _canvas(2, plane.aspect)
    low, high = _window(trace, "source")
    plane.show(axes[0], plane.cut(trace.source), "source", cmap="gray", vmin=low, vmax=high)
    low, high = _window(trace, "prediction")
    plane.show(axes[1], plane.cut(trace.image), "prediction", cmap="gray", vmin=low, vmax=high)
    for axis, points in ((axes[0], plane.points), (axes[1], trace.whence(plane.points))):
        for d in range(2):
            values = points[:, d].reshape(plane.shape).T
            levels = np.arange(np.ceil(values.min() / step_mm), np.floor(values.max() / step_mm) + 1) * step_mm
            axis.contour(
                *plane.lines, values, levels=levels, colors="#5ed6e0", linestyles="solid", linewidths=0.7, alpha=0.85
            )
    plane.scale_bar(axes[0])
    return figure


class _Plane:
    """An axial plane of the prediction's field of view, sampled on a lattice of the world."""

    def __init__(self, trace: Trace, slice_mm: float | None) -> None:
        grid = trace.image.grid
        ends = np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij")
        corners = grid.to_world(np.stack(ends, axis=-1).reshape(-1, grid.dims))
        low, high = corners.min(axis=0), corners.max(axis=0)
        self.step = float(grid.spacing.min())
        count = np.maximum(2, np.round((high - low)[:2] / self.step).astype(int) + 1)
        self.shape = (int(count[0]), int(count[1]))
        affine = np.eye(grid.dims + 1)
        affine[:2, :2] *= self.step
        affine[:2, -1] = low[:2]
        if grid.dims == 3:
            affine[2, 3] = float(grid.centre[2]) if slice_mm is None else slice_mm
        self.grid = Grid((*self.shape, *[1] * (grid.dims - 2)), affine)
        lattice = np.meshgrid(*[np.arange(n) for n in self.grid.shape], indexing="ij")
        self.points = self.grid.to_world(np.stack(lattice, axis=-1).reshape(-1, grid.dims))
        self.lines = tuple(affine[d, -1] + self.step * np.arange(self.shape[d]) for d in range(2))
        half = self.step / 2
        # Right on the left: the first world axis runs backwards across the picture.
        self.extent = (
            self.lines[0][0] - half,
            self.lines[0][-1] + half,
            self.lines[1][0] - half,
            self.lines[1][-1] + half,
        )
        self.aspect = self.shape[1] / self.shape[0]
        self.field: Displacement = trace.displacement

    def cut(self, volume: Volume) -> np.ndarray:
        """First channel of a volume on the plane, rows along A, columns along R."""
        flat = resample(volume.with_tensor(volume.tensor.float()), self.grid, outside="zeros")
        return flat.numpy().reshape(self.shape).T

    def show(self, axis: Axes, values: np.ndarray, name: str, **options: Any) -> Any:
        drawn = axis.imshow(values, origin="lower", extent=self.extent, interpolation="bilinear", **options)
        axis.set_xlim(self.extent[1], self.extent[0])
        axis.set_title(name, color=INK, fontsize=9)
        axis.set_axis_off()
        return drawn

    def arrows(self, axis: Axes, body: np.ndarray, count: int = 18) -> None:
        """Arrows from source to prediction inside the body, in true length."""
        stride = max(1, max(self.shape) // count)
        picked = self.points.reshape(*self.shape, -1)[stride // 2 :: stride, stride // 2 :: stride].reshape(
            -1, self.points.shape[1]
        )
        inside = body.T[stride // 2 :: stride, stride // 2 :: stride].ravel() > 0.5
        came = self.field(picked)
        moved = picked - came
        kept = inside & (np.linalg.norm(moved[:, :2], axis=1) > 0.5 * self.step)
        axis.quiver(
            came[kept, 0],
            came[kept, 1],
            moved[kept, 0],
            moved[kept, 1],
            color="#ffd9a0",
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.005,
        )

    def scale_bar(self, axis: Axes) -> None:
        width = self.extent[1] - self.extent[0]
        length = max(v for v in (1, 2, 5, 10, 20, 50, 100) if v <= max(width / 4, 1))
        right, bottom = self.extent[1] - 0.04 * width, self.extent[2] + 0.04 * width
        axis.plot([right, right - length], [bottom, bottom], color=INK, linewidth=2)
        axis.text(right - length / 2, bottom + 0.02 * width, f"{length} mm", color=INK, fontsize=7, ha="center")


def _canvas(count: int, aspect: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * count, 2.3 * aspect + 0.55), facecolor=GROUND, layout="constrained", dpi=150)
    rows = figure.add_gridspec(2, count, height_ratios=(1, 0.03))
    return figure, [figure.add_subplot(rows[0, i]) for i in range(count)]


def _colour_bar(figure: Figure, axis: Axes, drawn: Any) -> None:
    place = axis.get_subplotspec()
    assert place is not None
    # In a row of its own, so that the images of all columns stay on one line.
    below = figure.add_subplot(place.get_gridspec()[1, place.colspan.start])
    bar = figure.colorbar(drawn, cax=below, orientation="horizontal")
    bar.solids.set_alpha(1)
    bar.ax.tick_params(labelsize=6, colors=INK, length=2)
    bar.outline.set_visible(False)


def _window(trace: Trace, name: str) -> tuple[float, float]:
    volume = trace.source if name in ("source", "warped source") else trace.image
    values = volume.tensor[0, 0][torch.isfinite(volume.tensor[0, 0])].numpy()
    low, high = np.percentile(values, (0.5, 99.8)) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))
