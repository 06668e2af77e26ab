"""Train a method on a pairs table, or take up where a killed run stopped."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from whence.data.frame import Frame, up_to_multiple
from whence.data.neighbours import NeighbourDataset
from whence.data.pairs import PairsTable
from whence.data.retrieved import RetrievedDataset
from whence.data.unpaired import UnpairedDataset
from whence.errors import InputError
from whence.models import find_method
from whence.models.attributes import Attributes
from whence.train.callbacks import Watch, progress_bar
from whence.train.cases import bank_of
from whence.train.checkpoints import LAST, WholeCheckpoints, has_checkpoint, latest_checkpoint
from whence.train.general import keep_general
from whence.train.run import (
    RunConfig,
    check_alone,
    check_folder,
    differences,
    load,
    model_path,
    save_model,
    write_config,
)
from whence.train.samples import Samples, frame_of, held_out_of, samples_of, training_table
from whence.train.settings import TrainConfig

LARGEST_LATTICE = 2**30


def fit(method: str, data: str | Path, out: str | Path, model: Any = None, train: TrainConfig | None = None) -> Path:
    """Train ``method`` on the train split of a table; returns the run folder.

    Called again with the same settings it resumes at the last checkpoint, and does nothing once the run
    is finished. Raises InputError where the folder holds a run of other settings.
    """
    train = train or TrainConfig()
    out, data = Path(out), Path(data)
    check_folder(out)
    if out.resolve() == data.resolve().parent:
        raise InputError(f"{out} is the folder of the data, {data.name}; choose another --out for the run")
    check_alone(out, "config.yaml")
    chosen = find_method(method)
    model = chosen.config_class() if model is None else model
    least = sum(chosen.stages(model)) + 1
    if train.steps < least:
        raise InputError(
            f"{method} learns in stages, whose steps count among --steps; expected {least} or more with these options, "
            f"got {train.steps}"
        )
    table = training_table(data, chosen, chosen.sees_labels(model), train.columns)
    training_rows = table.split("train")
    known = RunConfig.from_file(out / "config.yaml") if (out / "config.yaml").is_file() else None
    source, pairs = str(data.resolve()), f"{_counts(table)}; {table.digest}"
    if known is not None and (
        changes := differences(known, RunConfig(method, model, train, known.frame, source, pairs))
    ):
        if model_path(out).is_file() or has_checkpoint(out / "checkpoints"):
            other = f"other settings ({'; '.join(changes)})" if known.method == method else known.method
            raise InputError(f"{out} holds a run of {other}; choose another --out")
        known = None  # it has learnt nothing yet
    frame = known.frame if known else frame_of(training_rows, train)
    config = RunConfig(method, model, train, frame, source, pairs)
    if known is not None and model_path(out).is_file():
        print(f"{out} is finished already: {train.steps} steps")
        return out
    if train.threads:
        torch.set_num_threads(train.threads)
    named = chosen.conditions(model)
    sources = {row.files["source"] for row in table if row.split in ("train", "val")} if named else set()
    if len(sources) > 1:
        found = f"{data} names {len(sources)} sources"
        raise InputError(f"{found}; {method} expected one, the general atlas, in all rows of train and val")
    attributes = Attributes.of(named, [row.conditions for row in training_rows]) if named else None
    try:
        net = config.build(attributes=attributes)
    except ValueError as error:
        raise InputError(f"{method} cannot be built for {data}: {error}") from error
    if min(frame.shape) < net.multiple:
        raise InputError(
            f"{method} with these options needs images of at least {net.multiple} voxels a side; "
            f"the training lattice is {'x'.join(map(str, frame.shape))}"
        )
    frame = replace(frame, shape=up_to_multiple(frame.shape, net.multiple))
    config = replace(config, frame=frame)
    if math.prod(frame.shape) > LARGEST_LATTICE:
        raise InputError(
            f"a training lattice of {'x'.join(map(str, frame.shape))} voxels exceeds any memory; "
            f"expected a --spacing above {min(frame.spacing):g} mm, or a --size"
        )
    net.bind(load, frame)
    made = not out.exists()
    _make_folder(out)
    try:
        trainer = _trainer(config, out)
        bank = None if net.retrieval(model) is None else bank_of(out, training_rows, frame)
        with progress_bar(transient=True) as bar:
            task = bar.add_task("reading images", total=None, note="")

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            samples = samples_of(training_rows, frame, net, train.seed, progress, bank)
            held_out = held_out_of(table, frame, net, train.seed, bank, samples)
    except InputError:
        if made:
            with suppress(OSError):
                out.rmdir()  # it stays where something lies in it
        raise
    print(_summary(table, frame, samples, held_out))
    if leaking := _on_both_sides(table):
        print(f"note: {leaking}: what is found on them is no held-out figure")
    if known is None:
        # Only now is it known that these settings can be trained at all.
        write_config(config, out)
    if named:
        keep_general(training_rows, out, anew=known is None)
    _run(trainer, net, config, samples, held_out, out)
    save_model(net, out)
    return out


def _trainer(config: RunConfig, out: Path) -> Any:
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train = config.train
    keep = ModelCheckpoint(
        dirpath=out / "checkpoints",
        filename=Path(LAST).stem,
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            return L.Trainer(
                accelerator=train.accelerator,
                devices=train.devices,
                strategy="auto" if train.devices == 1 else "ddp_find_unused_parameters_true",
                precision=train.precision,  # type: ignore[arg-type]
                max_epochs=math.ceil(train.steps / train.save_every),
                reload_dataloaders_every_n_epochs=1,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                logger=TensorBoardLogger(save_dir=out, name="", version="tensorboard"),
                callbacks=[keep, Watch(out / "metrics.csv", f"training {config.method}")],
                plugins=[WholeCheckpoints()],
                enable_progress_bar=False,
                enable_model_summary=False,
                deterministic="warn",
                default_root_dir=out,
            )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot train with accelerator {train.accelerator!r}, {train.devices} device(s) and precision "
            f"{train.precision!r}: {error}"
        ) from error


def _run(trainer: Any, net: Any, config: RunConfig, samples: Samples, held_out: Samples | None, out: Path) -> None:
    from whence.train.training import Stretches, Training

    train = config.train
    # The first axis of sagittal slices runs from back to front, where nobody is symmetric.
    training = Training(net, train, flip=train.flip and config.frame.plane != "sagittal")
    last = latest_checkpoint(out / "checkpoints", training.state_dict())
    with warnings.catch_warnings():
        # Lightning advises on workers and loggers; samples are in memory and need none.
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        try:
            trainer.fit(training, datamodule=Stretches(samples, held_out, train), ckpt_path=last, weights_only=True)
        except SystemExit as error:
            # Lightning turns an interruption into an exit of its own.
            if trainer.interrupted:
                # A stretch that was not finished is taken again from its beginning.
                place = f"step {training.first_step} of {train.steps}"
                raise KeyboardInterrupt(f"stopped; the same command goes on at {place}") from error
            raise


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from error


def _counts(table: PairsTable) -> str:
    counts = Counter(row.split for row in table)
    return ", ".join(f"{count} {split or 'of no split'}" for split, count in counts.items())


def _on_both_sides(table: PairsTable) -> str:
    """Patients of whom some rows are trained on and others tested, in words; empty where there is none."""
    found = {
        split: {r.conditions["patient"] for r in table if r.split == split and "patient" in r.conditions}
        for split in ("train", "test")
    }
    both = sorted(found["train"] & found["test"])
    more = f" and {len(both) - 3} more" if len(both) > 3 else ""
    return f"{', '.join(both[:3])}{more} of the column 'patient' stand in train and in test" if both else ""


def _summary(table: PairsTable, frame: Frame, samples: Samples, held_out: Samples | None) -> str:
    shape, spacing = "x".join(map(str, frame.shape)), "x".join(f"{s:g}" for s in frame.spacing)
    slices = ""
    if isinstance(samples, UnpairedDataset):
        slices = f"; {len(samples.sources)} sources and {len(samples.targets)} targets to train on, no pairs"
    elif isinstance(samples, RetrievedDataset):
        slices = f"; {len(samples.places)} images with a tumour to train on, past cases beside them"
    elif not isinstance(samples, NeighbourDataset) and len(samples) != len(table.split("train")):
        slices = f"; {len(samples)} {frame.plane} slices to train on"
    none = "; no row of split val that it can look at, so that nothing is held out while training"
    validation = "" if held_out is not None else none
    return f"{_counts(table)}{slices}; images of {shape} voxels of {spacing} mm{validation}"
