"""The hot operations: ours, fused and plain, beside MONAI's and torch's, forward and with gradients."""

from __future__ import annotations

import ctypes
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from whence import kernels
from whence.bench.rows import Row, kernel_choice
from whence.losses import make_similarity

_NOTES = (
    "Median of interleaved repeats in one process, compilation excluded; who has taken more than ten seconds in all "
    "is not repeated beyond the third call. Ratios "
    "above 1 say how many times faster ours is. Memory is the resident set's peak above what stood before the "
    "call, results and gradients included. The floor is the time a copy takes that moves each input, result and "
    "gradient once. With gradients: of image and field for warps, of the velocity, of the first image for "
    "similarities. GMI is GlobalMutualInformationLoss with a b-spline window (MI in the rows of NMI, too), LNCC "
    "LocalNormalizedCrossCorrelationLoss."
)
SIZES = {"2D": (8, (256, 256)), "3D": (1, (160, 192, 160))}
QUICK = {"2D": (2, (96, 96)), "3D": (1, (40, 48, 40))}
OPERATIONS = (
    "warp",
    "compose",
    "exp",
    "exp and warp",
    "Jacobian determinant",
    "MI, 32 bins",
    "NMI, 32 bins",
    "LNCC, window 9",
    "LNCC, window 25",
    "MIND-SSC",
)
COLOURS = {"plain torch": "#8a8f98", "MONAI": "#2f6f9f", "voxelmorph": "#3aa58f", "grid_sample": "#d08a3a"}
# Seconds after which a contestant is not repeated beyond its third call.
PATIENCE, LEAST = 10.0, 3

Call = Callable[..., torch.Tensor]


def title(quick: bool) -> str:
    """Heading of the table."""
    return "The hot operations" + (", small sizes" if quick else "")


def notes(quick: bool) -> str:
    """What the columns mean."""
    return _NOTES


def rows(quick: bool) -> list[Row]:
    """Each operation in 2D and 3D, forward and with gradients."""
    found = []
    for name, (batch, shape) in (QUICK if quick else SIZES).items():
        for operation in OPERATIONS:
            for gradients in (False, True):
                settings = {"operation": operation, "batch": batch, "shape": list(shape), "gradients": gradients}
                settings["repeats"] = 3 if quick else 7
                words = "forward and backward" if gradients else "forward"
                found.append(Row(f"{operation}, {name}, {words}", settings))
    return found


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Times, ratios, memory and distance from the floor."""
    settings = row.settings
    batch, shape, gradients = settings["batch"], tuple(settings["shape"]), settings["gradients"]
    inputs, moved = _inputs(settings["operation"], batch, shape)
    # The second image of a similarity, and the image that a velocity carries, stay as they are.
    wanted = [gradients and not (k == 1 and inputs[1].shape[1] == 1) for k in range(len(inputs))]
    contestants = _contestants(settings["operation"], shape, inputs)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    memory: dict[str, float | None] = {}
    for name, (call, given) in contestants.items():
        # The first run compiles; the second shows the memory.
        first = _run(call, _leaves(given, wanted))
        if name != "ours" and first > PATIENCE:
            # Nothing of such a call is compilation.
            seconds[name].append(first)
        tensors = _leaves(given, wanted)
        with _watch() as peak:
            seconds[name].append(_run(call, tensors))
        memory[name] = peak()
    for _ in range(settings["repeats"] - 1):
        for name, (call, given) in contestants.items():
            if len(seconds[name]) < LEAST or sum(seconds[name]) < PATIENCE:
                seconds[name].append(_run(call, _leaves(given, wanted)))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    voxels = batch * int(torch.Size(shape).numel())
    floor = 4.0 * voxels * moved[gradients] / _bandwidth()
    peers = [name for name in contestants if name not in ("ours", "reference")]
    cells: dict[str, Any] = {f"{name} [ms]": round(1e3 * medians[name], 2) for name in ("ours", "reference")}
    cells["reference / ours"] = round(medians["reference"] / medians["ours"], 1)
    cells["peers [ms]"] = "; ".join(f"{name} {1e3 * medians[name]:.2f}" for name in peers)
    cells["peer / ours"] = "; ".join(f"{name} {medians[name] / medians['ours']:.1f}" for name in peers)
    cells["extra memory [MB]"] = "; ".join(f"{n} {m:.0f}" for n, m in memory.items() if m is not None)
    cells["ours / floor"] = round(medians["ours"] / floor, 1)
    return cells


def draw(frame: Any, out: Path) -> None:
    """Bars: how many times faster than the reference and the peers, a panel for each size and kind, ``ratios.png``."""
    from matplotlib.figure import Figure

    from whence.io import replacing

    figure = Figure(figsize=(12, 9), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for panel, (size, kind) in zip(
        panels.flat, product(reversed(SIZES), ("forward", "forward and backward")), strict=True
    ):
        for place, operation in enumerate(OPERATIONS):
            record = frame[frame["row"] == f"{operation}, {size}, {kind}"]
            if len(record):
                _bars(panel, place, _ratios(record.iloc[0]))
        panel.set_title(f"{size}, {kind}", fontsize=10)
        panel.set_yticks(range(len(OPERATIONS)), OPERATIONS, fontsize=9)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlim(0.3, 600)
        panel.set_ylim(len(OPERATIONS) - 0.4, -0.6)
    for panel in panels[1]:
        panel.set_xlabel("how many times faster the fused kernels are")
    handles = {handle.get_label(): handle for panel in panels.flat for handle in panel.containers}
    wanted = [handles[name] for name in COLOURS if name in handles]
    figure.legend(wanted, [str(handle.get_label()) for handle in wanted], ncols=len(wanted), loc="outside upper center")
    with replacing(out / "ratios.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _ratios(record: Any) -> dict[str, float]:
    """How many times slower each contestant is, by the name its colour has."""
    found = {"plain torch": float(record["reference / ours"])}
    for part in filter(None, str(record["peer / ours"]).split("; ")):
        name, _, value = part.rpartition(" ")
        found[next(known for known in COLOURS if name.startswith(known))] = float(value)
    return found


def _bars(panel: Any, place: int, found: dict[str, float]) -> None:
    height = 0.8 / max(len(found), 2)
    for number, (name, value) in enumerate(found.items()):
        at = place + (number - (len(found) - 1) / 2) * height
        panel.barh(at, value - 1, 0.9 * height, left=1, color=COLOURS[name], label=name)
        side, anchor = (3, "left") if value >= 1 else (-3, "right")
        place_of_text = {"textcoords": "offset points", "va": "center", "ha": anchor}
        panel.annotate(f"{value:g}", (value, at), (side, 0), fontsize=6.5, **place_of_text)


def _inputs(operation: str, batch: int, shape: tuple[int, ...]) -> tuple[list[torch.Tensor], tuple[float, float]]:
    """Tensors of an operation, and how many numbers a voxel must move, forward and with gradients."""
    dims, generator = len(shape), torch.Generator().manual_seed(0)

    def smooth(channels: int, scale: float) -> torch.Tensor:
        coarse = torch.randn(batch, channels, *[-(-n // 16) for n in shape], generator=generator)
        return scale * F.interpolate(coarse, shape, mode="bilinear" if dims == 2 else "trilinear")

    image = (smooth(1, 0.5) + 0.05 * torch.randn(batch, 1, *shape, generator=generator)).clamp(-1, 1)
    other, field = (0.7 * image - 0.3 * smooth(1, 0.5)).clamp(-1, 1), smooth(dims, 3.0)
    entries = 4 if dims == 2 else 12
    if operation == "warp":
        return [image, field], (dims + 2, 2 * (dims + 2) + dims + 1)
    if operation == "compose":
        return [field, smooth(dims, 3.0)], (3 * dims, 8 * dims)
    if operation == "exp":
        return [field], (2 * dims, 5 * dims)
    if operation == "exp and warp":
        return [field, image], (dims + 2, 3 * dims + 4)
    if operation == "Jacobian determinant":
        return [field], (dims + 1, 3 * dims + 2)
    if operation == "MIND-SSC":
        return [image], (1 + entries, 3 + 2 * entries)
    return [image, other], (2, 5)


def _contestants(
    operation: str, shape: tuple[int, ...], inputs: list[torch.Tensor]
) -> dict[str, tuple[Call, list[torch.Tensor]]]:
    """Who takes part: a call and its inputs, of which those that vary in use get gradients."""
    from monai.losses import GlobalMutualInformationLoss, LocalNormalizedCrossCorrelationLoss
    from monai.networks.blocks import DVF2DDF, Warp

    dims = len(shape)
    similarity = operation.split(",")[0].lower()
    voxelmorph = _voxelmorph()
    if operation == "warp":
        own: Call = kernels.warp
        axes = [2 * (kernels.identity(shape) + inputs[1])[:, d] / (shape[d] - 1) - 1 for d in reversed(range(dims))]
        ready = [inputs[0], torch.stack(axes, dim=-1)]
        sample = partial(F.grid_sample, align_corners=True, padding_mode="border")
        peers: dict[str, tuple[Call, list[torch.Tensor]]] = {
            "MONAI Warp": (Warp(), inputs),
            "grid_sample with a ready grid": (sample, ready),
        }
        if voxelmorph:
            peers["voxelmorph"] = (partial(voxelmorph.spatial_transform, padding_mode="border"), inputs)
    elif operation == "compose":
        own, peers = kernels.compose, {}
    elif operation == "exp":
        own, peers = kernels.exp, {"MONAI DVF2DDF": (DVF2DDF(), inputs)}
        if voxelmorph:
            peers["voxelmorph"] = (partial(voxelmorph.integrate_vec, steps=7), inputs)
    elif operation == "exp and warp":
        flow, carry = DVF2DDF(), Warp()
        own = _exp_and_warp
        peers = {"MONAI DVF2DDF, Warp": (lambda v, i: carry(i, flow(v)), inputs)}
        if voxelmorph:
            integrate, move = partial(voxelmorph.integrate_vec, steps=7), voxelmorph.spatial_transform
            peers["voxelmorph"] = (lambda v, i: move(i, integrate(v), padding_mode="border"), inputs)
    elif operation == "Jacobian determinant":
        own, peers = kernels.jacobian_determinant, {}
    elif operation == "MIND-SSC":
        own, peers = kernels.mind_descriptor, {}
    elif similarity == "lncc":
        window = int(operation.split()[-1])
        own = make_similarity("ncc", window=window)
        peers = {"MONAI LNCC": (LocalNormalizedCrossCorrelationLoss(dims, window), inputs)}
    else:
        own = make_similarity(similarity, bins=32)
        scaled = [(i + 1) / 2 for i in inputs]
        peers = {"MONAI GMI": (GlobalMutualInformationLoss("b-spline", 32), scaled)}
    return {"ours": (_with(own, ""), inputs), "reference": (_with(own, "reference"), inputs), **peers}


def _voxelmorph() -> Any:
    """voxelmorph's functions where it is installed, else None."""
    try:
        from voxelmorph.nn import functional
    except ImportError:
        return None
    return functional


def _exp_and_warp(velocity: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return kernels.warp(image, kernels.exp(velocity))


def _with(call: Call, kernels_named: str) -> Call:
    """A call with the named kernels, whatever the environment says; the device's own for an empty name."""

    def chosen(*inputs: torch.Tensor) -> torch.Tensor:
        with kernel_choice(kernels_named):
            return call(*inputs)

    return chosen


def _leaves(inputs: list[torch.Tensor], wanted: list[bool]) -> list[torch.Tensor]:
    """Copies of the inputs, of which some want a gradient."""
    return [i.clone().requires_grad_(wants) for i, wants in zip(inputs, wanted, strict=True)]


def _run(call: Call, inputs: list[torch.Tensor]) -> float:
    """Seconds of one call, with the gradients of the inputs that want one."""
    gradients = any(i.requires_grad for i in inputs)
    started = time.perf_counter()
    with torch.set_grad_enabled(gradients):
        value = call(*inputs)
        if gradients:
            value.sum().backward()
    return time.perf_counter() - started


@contextmanager
def _watch() -> Iterator[Callable[[], float | None]]:
    """Peak of the resident set above where it stood, MB, once the block is left; None where it cannot be read."""
    statm, page, stop = Path("/proc/self/statm"), 4096 / 2**20, threading.Event()
    peak: list[float] = []

    def resident() -> float:
        return int(statm.read_text().split()[1]) * page

    if not statm.is_file():
        yield lambda: None
        return
    # Memory that was freed but kept would hide what the call takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    before = resident()

    def look() -> None:
        while not stop.is_set():
            peak.append(resident())
            stop.wait(0.001)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak, default=before) - before
    finally:
        stop.set()
        watcher.join()


@cache
def _bandwidth() -> float:
    """Bytes a second that a copy of a large tensor moves, reading and writing."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - started)
    return 2 * 4 * source.numel() / min(times)
