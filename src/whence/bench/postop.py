"""Retrieval-based post-operative generation beside the document's tables: other methods, retrievals and prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from whence.bench.perceptual import perceptual_distance
from whence.bench.rows import Row, mean_cell
from whence.bench.segmenter import Segmenter, segmenter
from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import Pair, PairsTable, read_pairs
from whence.data.phantom import write_phantom
from whence.field import Displacement
from whence.io import load_json, read_labels, replacing, save_json
from whence.metrics import label_overlap
from whence.models import find_method
from whence.models.cases import Asked
from whence.models.method import Prediction
from whence.models.predictor import Predictor
from whence.registration import default_similarity, register_diffeomorphic
from whence.space import Volume
from whence.trace import Trace
from whence.train.evaluate import beside_truth, predict_row, row_generator
from whence.train.fit import fit
from whence.train.options import read_recipe
from whence.train.run import load
from whence.train.score import Truth, nothing, score

# Column: figure, digits.
SHOWN = {
    "SSIM": ("ssim", 3),
    "MS-SSIM": ("ms_ssim", 3),
    "PSNR [dB]": ("psnr", 2),
    "LPIPS": ("lpips", 4),
    "cavity Dice": ("cavity", 3),
    "displacement error within 15 mm [mm]": ("displacement_error_near", 2),
    "novelty AUC": ("novelty_auc", 3),
    "Dice with the plan": ("planned", 3),
    "slice to slice": ("apart", 3),
}
# Pairs that each method sees in training, and those who learn plans as well.
IMAGES_SEEN, WITH_PLANS = 5_000, 15_000
# Patients in the picture; volumes whose slices are compared.
DRAWN, VOLUMES = 3, 4
# Who is told plans in training has less of it left for the task of the document's tables, which has none.
OURS: dict[str, Any] = {"method": "postop", "planned": 0.0}
PLANS: dict[str, Any] = {"method": "postop", "images": WITH_PLANS}
# What the document compares with, in the terms of what of ours they have.
CONCATENATION: dict[str, Any] = {
    "method": "plasticine",
    "structure": f"{__name__}:intensity",
    "transformation": False,
    "given": 1.0,
}
EXAMPLE: dict[str, Any] = {**OURS, "strategy": "random", "instructed": False}
INSTRUCTION: dict[str, Any] = {**OURS, "instructed": False, "segmentation": False, "composed": False}
IMAGES: dict[str, Any] = {**OURS, "strategy": "random", "segmentation": False, "composed": False}


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the true image": ({"by": "truth"}, {}),
    "the source as it is": ({"by": "nothing"}, {}),
    "ours": (OURS, {"SSIM": 0.7001, "MS-SSIM": 0.7814, "PSNR [dB]": 31.67, "LPIPS": 0.1845}),
    "the composite, no model": ({**OURS, "by": "composite"}, {}),
    "TraceTrans": ({"method": "tracetrans"}, {}),
    "DDPM, before and after joined": (CONCATENATION, {"SSIM": 0.5744}),
    "paint by example, a random region": (EXAMPLE, {"SSIM": 0.6695}),
    "an instruction alone (InstructPix2Pix)": (INSTRUCTION, {"SSIM": 0.6649}),
    "random image instruction (ImageBrush)": (IMAGES, {"SSIM": 0.6718}),
    "ours, random retrieval": ({**OURS, "strategy": "random"}, {}),
    "ours, retrieval by image": ({**OURS, "strategy": "image"}, {}),
    "the model of ours, shown a random case": ({**OURS, "shown": "random"}, {}),
    "the model of ours, shown a case by image": ({**OURS, "shown": "image"}, {}),
    "ours, not told the tumour (p_seg and grid)": ({**OURS, "segmentation": False}, {}),
    "ours, not told the composite (p_comp and latents)": ({**OURS, "composed": False}, {}),
    "the model of ours, p_seg alone left out": ({**OURS, "silent": 0}, {}),
    "the model of ours, p_comp alone left out": ({**OURS, "silent": 1}, {}),
    "ours, drawn by the autoencoder (no carrier)": ({**OURS, "carrier": []}, {}),
    "plans learnt, not told of one: half of the tumour": ({**PLANS, "by": "unplanned"}, {}),
    "plans learnt, told to cut half of the tumour": ({**PLANS, "by": "planned"}, {}),
    "ours, a volume's slices each by itself": ({**OURS, "by": "apart"}, {}),
    "ours, a volume's slices together": ({**OURS, "by": "together"}, {}),
    "ours, trained again": ({**OURS, "seed": 1}, {}),
    "ours, random retrieval, trained again": ({**OURS, "strategy": "random", "seed": 1}, {}),
}


def title(quick: bool) -> str:
    """Heading of the table."""
    return f"After surgery{', smoke version' if quick else ' (surgery phantom, 2D, 64 x 64, 50 held-out patients)'}"


def notes(quick: bool) -> str:
    """What the reader of the table must know."""
    if quick:
        return "A smoke version: 4 steps on 40 patients. It shows that every row runs; its figures mean nothing."
    black = torch.zeros(1, 1, 64, 64)
    absent = perceptual_distance(black, black) is None
    found = "LPIPS is left out: the weights of its network, or torchvision, are not on this machine. " if absent else ""
    return (
        "Mean ± standard deviation over patients; SSIM and PSNR in the brain. Cavity Dice: the cavity that a "
        "segmenter, trained on the true images after surgery, finds in the prediction, with the true one. "
        "Displacement error: of the trace within 15 mm of the cavity: TraceTrans and what has a carrier have their "
        "own; all others' are recovered by one registration (correlation), with the cavity that was shown masked "
        "out. The true image in place of a prediction says what judge and registration can find at best. All learn "
        f"from the same 920 patients and see {IMAGES_SEEN:,} pairs, with the rates of their CPU recipes; all latent "
        "diffusions share one autoencoder, which has seen 8,000 pairs before, weigh the operation ten times as heavy "
        "as the rest and, but for the row without, have the carrier of ours: the scan's own voxels, moved and changed, "
        "which what the document compares with does not. TraceTrans sees the scan alone. What the document compares "
        "with stands here in its essentials: an example is a random past case's region, pasted where it lies, an "
        "instruction one learnt prompt for all, a random image instruction a random case in the grid, without "
        "tumour mask and composite; retrieval by image is by the correlation of thumbnails of 24 voxels. The model "
        "of ours: trained as ours, and shown another's case, or denied a prompt, when predicting alone. Trained again: "
        "with another seed, which says how far one training is from the next. Less ours: the mean of the patients' "
        "differences and its standard error. VISII, which the document names as well, is left out: it inverts a "
        "published model of photographs. A plan: of "
        f"{WITH_PLANS:,} pairs 6 in 10 are told what is cut, 4 of them a made-up plan; to be followed is the "
        "half of the tumour on one side, chosen by chance, which says nothing of what was really cut; nobody "
        f"knows that image, so that only the cavity is judged. Slice to slice: of {VOLUMES} volumes of 64 x 64 x "
        "64, drawn by the model of slices, the mean difference of neighbouring slices that show the tumour, "
        f"there and 2 voxels about, over that of the true image. {found}Published: LUMIERE, other data than ours, "
        "so that the order and not the height can be compared."
    )


def rows(quick: bool) -> list[Row]:
    """Other methods, then retrievals and prompts, then what a plan does."""
    base: dict[str, Any] = {"cases": 1000, "size": 64, "images": IMAGES_SEEN, "autoencoder": 2000}
    smoke: dict[str, Any] = {}
    if quick:
        base, smoke = {"cases": 40, "size": 48, "autoencoder": 2}, {"images": 32}
    return [Row(name, {**base, **kind, **smoke}, published) for name, (kind, published) in KINDS.items()]


def intensity(image: torch.Tensor) -> torch.Tensor:
    """An image in [-1, 1] as a map in 0..1: the structure of a diffusion that sees all of the source."""
    return (image + 1) / 2


def measure(row: Row, data: Path, work: Path) -> dict[str, Any]:
    """Train what the row needs, in a folder that rows which ask the same model share, and judge its predictions."""
    settings = dict(row.settings)
    cases, size = settings.pop("cases"), settings.pop("size")
    by, shown, silent = (settings.pop(name, None) for name in ("by", "shown", "silent"))
    where = data / f"{cases}_{size}"
    table = write_phantom("surgery", cases, size, where / "data")
    rows = read_pairs(table)
    judge = segmenter(_after(rows.split("train")), [1], where / "segmenter.pt", min(3000, 6 * cases))
    predictor = None if by in ("nothing", "truth") else _trained(settings, where, table)
    if predictor is not None:
        # All traces that no model predicts are recovered alike.
        predictor.method.recovered_by = "ncc"  # type: ignore[misc]
    if shown:
        assert predictor is not None
        # What a case is worth to a model that has learnt from those of similar tumours.
        predictor.method.config = replace(predictor.method.config, strategy=shown)
    if silent is not None:
        assert predictor is not None
        predictor.method.prompt = _silenced(predictor.method, silent)  # type: ignore[method-assign]
    if by == "composite":
        assert predictor is not None
        predictor.method.infer = _pasted(predictor)  # type: ignore[method-assign]
    if by in ("apart", "together"):
        assert predictor is not None
        return {"slice to slice": mean_cell(_steps(predictor, by, where / "volumes", size), SHOWN["slice to slice"][1])}
    people, found = rows.split("test"), []
    for pair in people:
        plan = _half(pair) if by in ("planned", "unplanned") else None
        if predictor is None:
            trace = nothing(_still(pair)) if by == "nothing" else _true(pair)
        elif by == "planned":
            asked = Asked(pair.id, resection=plan)
            given = {"mask": read_labels(pair.path("source_mask")), "asked": asked}
            trace = predictor.predict(read_image(pair.path("source")), row_generator(0, pair.id), **given, id=pair.id)
        else:
            trace = predict_row(predictor, pair, people)
        found.append(_judged(trace, pair, judge, plan))
        if len(found) <= DRAWN:
            trace = beside_truth(trace, Truth.of(pair, trace.image), pair)
            trace.save(data / "traces" / row.name / pair.id)
    kept = data / "figures" / f"{row.name}.json"
    save_json({pair.id: figures for pair, figures in zip(people, found, strict=True)}, kept)
    cells = {
        name: mean_cell([f[key] for f in found], digits)
        for name, (key, digits) in SHOWN.items()
        if all(key in f for f in found)
    }
    return {**cells, **_less_than_ours(kept)}


def _less_than_ours(figures: Path) -> dict[str, str]:
    """By how much a row's SSIM and cavity Dice exceed those of ours, by patient: the mean ± its standard error."""
    ours = figures.with_name("ours.json")
    if figures == ours or not ours.is_file():
        return {}
    here, there, found = load_json(figures), load_json(ours), {}
    for name, key in (("SSIM, less ours", "ssim"), ("cavity Dice, less ours", "cavity")):
        if all(key in kept for kept in here.values()):
            apart = np.array([here[who][key] - there[who][key] for who in here])
            found[name] = f"{apart.mean():+.3f} ± {apart.std(ddof=1) / np.sqrt(len(apart)):.3f}"
    return found


def _judged(trace: Trace, pair: Pair, judge: Segmenter, plan: Volume | None) -> dict[str, float]:
    truth = Truth.of(pair, trace.image)
    cavity = judge.segment(trace.image)
    if plan is not None:
        # Of what was not done no true image is known.
        return {"planned": label_overlap(cavity, plan, [1])[1][0]}
    found = score(trace, truth)
    found["cavity"] = label_overlap(cavity, _binary(read_labels(pair.path("target_mask"))), [1])[1][0]
    pictures = (Intensity.of(image).normalise(image.tensor) for image in (trace.image, truth.target))
    distance = perceptual_distance(*pictures)
    return found if distance is None else {**found, "lpips": distance}


def _trained(settings: dict[str, Any], where: Path, table: Path) -> Predictor:
    settings = dict(settings)
    method, images, alone = (settings.pop(name) for name in ("method", "images", "autoencoder"))
    chosen = find_method(method)
    batch = read_recipe(f"{method}-cpu", chosen)[1].batch_size
    steps = max(1, images // batch)
    changes = {**settings, "steps": steps, "save_every": min(500, steps)}
    if method == "postop":
        changes |= {"pretrained": str(_autoencoder(alone, where, table)), "vae_steps": 0}
    name = "_".join([method, *(f"{key}_{str(value).split(':')[-1]}" for key, value in sorted(settings.items()))])
    return load(fit(method, table, where / name, *read_recipe(f"{method}-cpu", chosen, **changes)))


def _autoencoder(steps: int, where: Path, table: Path) -> Path:
    """A folder of the autoencoder that all latent diffusions of the table share."""
    folder = where / "autoencoder"
    if list((folder / "vae").glob("*.safetensors")):
        return folder
    stages = {"vae_steps": steps, "steps": steps + 1, "batch_size": 4}
    run = fit("postop", table, where / "before", *read_recipe("postop-cpu", find_method("postop"), **stages))
    net = load(run).method
    net.vae.register_to_config(scaling_factor=float(net.scale))
    net.vae.save_pretrained(folder / "vae")
    return folder


def _after(rows: PairsTable) -> PairsTable:
    """The images after surgery with their cavities as labels."""
    files = [{"source": row.path("target"), "source_labels": row.path("target_cavity")} for row in rows]
    return replace(rows, rows=tuple(replace(row, files=f) for row, f in zip(rows, files, strict=True)))


def _steps(predictor: Predictor, by: str, where: Path, size: int) -> list[float]:
    """How far neighbouring slices of predicted volumes differ about the operation, over how far the true ones do."""
    table = read_pairs(write_phantom("surgery", 3 * VOLUMES, min(size, 64), where, 3))
    if by == "apart":
        predictor.method.together = False  # type: ignore[misc]
        predictor = replace(predictor, batch=1)
    found = []
    for pair in table.rows[:VOLUMES]:
        trace = predict_row(predictor, pair, table)
        truth = Truth.of(pair, trace.image)
        shown = read_labels(pair.path("source_mask")).tensor.amax(dim=(2, 3))[0, 0] > 0
        there = torch.maximum(*(read_labels(pair.path(name)).tensor.float() for name in ("source_mask", "target_mask")))
        near = truth.body[..., shown] & (F.max_pool3d(there, 5, 1, 2)[..., shown] > 0)
        images = [Intensity.of(image).normalise(image.tensor)[..., shown] for image in (trace.image, truth.target)]
        steps = [image.diff(dim=-1).abs()[near[..., 1:]].mean() for image in images]
        found.append(float(steps[0] / steps[1]))
    return found


def _silenced(method: Any, which: int) -> Any:
    """The prompt of a method with one of its vectors left out, as if nothing were known."""
    prompt = method.prompt

    def silenced(mask: torch.Tensor, composed: torch.Tensor) -> torch.Tensor:
        found = prompt(mask, composed).clone()
        found[:, which] = method.unprompted[which]
        return found

    return silenced


def _pasted(predictor: Predictor) -> Any:
    """The composite as the prediction of a method that makes one."""

    def infer(batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        found: Prediction = type(predictor.method).infer(predictor.method, batch, generator)
        bare = {"displacement": None, "inverse": None, "comparable": 1 - batch["case_target_cavity"]}
        return found._replace(image=found.images["composite"], **bare)

    return infer


def _still(pair: Pair) -> Trace:
    image = read_image(pair.path("source"))
    field = Displacement.identity(image.grid)
    return Trace.build(image, image, field, field, method="nothing")


def _true(pair: Pair) -> Trace:
    """The true image as a prediction: what the judge and the registration make of it is the best they can."""
    image, source = read_image(pair.path("target")), read_image(pair.path("source"))
    shown = Intensity.of(source).restore(Intensity.of(image).normalise(image.tensor))
    where = image.with_tensor((read_labels(pair.path("target_cavity")).tensor == 0).float())
    forward, backward = register_diffeomorphic(
        image.with_tensor(shown), source, default_similarity("ncc"), fixed_mask=where
    )
    return Trace.build(source, image.with_tensor(shown), forward, backward, kind="recovered", method="truth")


def _half(pair: Pair) -> Volume:
    """The half of a patient's tumour on one side of a line through its middle, drawn by the patient's name."""
    mask = _binary(read_labels(pair.path("source_mask")))
    places = np.argwhere(mask.tensor[0, 0].numpy() > 0)
    angle = float(torch.rand(1, generator=row_generator(0, pair.id))) * 2 * np.pi
    direction = np.array([np.cos(angle), np.sin(angle)])
    along = (places - places.mean(axis=0)) @ direction
    half = torch.zeros_like(mask.tensor)
    half[0, 0][tuple(places[along > np.median(along)].T)] = 1
    return mask.with_tensor(half)


def _binary(mask: Volume) -> Volume:
    return mask.with_tensor((mask.tensor != 0).to(torch.uint8))


def draw(frame: Any, out: Path) -> None:
    """The first patients by each method of the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Of the code that made the table: the folder that was written to last.
    newest = max((out / "data").glob("*/traces"), key=lambda folder: folder.stat().st_mtime, default=None)
    # Which look like others: what differs there is not to be seen.
    alike = {
        name
        for name, (kind, _) in KINDS.items()
        if {"shown", "silent", "seed"} & kind.keys() or kind.get("by") == "truth"
    }
    shown = [] if newest is None else [name for name in KINDS if name not in alike and (newest / name).is_dir()]
    if newest is None or not shown:
        return
    ids = sorted(folder.name for folder in (newest / shown[0]).iterdir())
    size = (len(shown) + 1, len(ids))
    figure, axes = pyplot.subplots(
        *size[::-1], figsize=(1.7 * size[0], 2.0 * size[1]), facecolor="black", squeeze=False
    )
    for line, case in zip(axes, ids, strict=True):
        traces = {name: Trace.load(newest / name / case) for name in shown}
        first = traces[shown[0]]
        assert first.target is not None
        panels = {"true image": first.target, **{name: trace.image for name, trace in traces.items()}}
        for axis, (name, image) in zip(line, panels.items(), strict=True):
            shade = (Intensity.of(image).normalise(image.tensor)[0, 0] + 1) / 2
            axis.imshow(shade.T.flip(0), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if case == ids[0]:
                axis.set_title("\n".join(wrap(name, 18)), color="white", fontsize=7)
    figure.tight_layout(pad=0.3)
    with replacing(out / "postop.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="black")
    pyplot.close(figure)
