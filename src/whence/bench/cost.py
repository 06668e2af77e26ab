"""What a prediction costs, measured in a process that does nothing else."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path


def cost(run: Path, image: Path, labels: Path | None = None, threads: int = 2) -> tuple[float, float]:
    """Seconds of the second prediction of an image, its trace included, and the process's peak memory in MiB.

    The first prediction compiles. The memory is all that the process held, libraries and weights as well.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, run, image, labels, threads).result()


def step_cost(method: str, recipe: str, dims: int, step: int, threads: int = 2) -> tuple[float, float]:
    """Seconds of training step ``step`` of a recipe at its own size, on noise, and the process's peak memory in GiB.

    For a method that is told conditions and sees neighbours. Nothing is learnt from noise: it costs what images cost.
    Not a number and infinity where the machine's memory is too small.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_stepped, method, recipe, dims, step, threads).result()
        except BrokenProcessPool:
            # The system ended it for its memory.
            return float("nan"), float("inf")


def _stepped(method: str, recipe: str, dims: int, step: int, threads: int) -> tuple[float, float]:
    import torch

    from whence.memory import keep_freed_memory
    from whence.models import find_method
    from whence.models.attributes import Attributes
    from whence.train.options import read_recipe

    keep_freed_memory()
    torch.set_num_threads(threads)
    chosen = find_method(method)
    model, train = read_recipe(recipe, chosen)
    names = chosen.conditions(model)
    known = Attributes.of(names, [dict.fromkeys(names, value) for value in (20.0, 60.0)])
    net = chosen(model, dims, 1, 1, attributes=known)
    generator = torch.Generator().manual_seed(0)
    near = chosen.neighbourhood(model)
    assert near is not None
    counts = {"source": 1, "target": 1, "near_target": near.count}
    batch = {
        name: 2 * torch.rand((train.batch_size, count, *train.size), generator=generator) - 1
        for name, count in counts.items()
    }
    batch["conditions"] = torch.zeros(train.batch_size, len(names))
    batch["near_index"] = torch.arange(near.count).expand(train.batch_size, -1)
    started = time.perf_counter()
    net.training_step(batch, net.optimizers(), lambda loss: loss.backward(), generator, step)
    return time.perf_counter() - started, _peak() / 2**10


def _measured(run: Path, image: Path, labels: Path | None, threads: int) -> tuple[float, float]:
    import torch

    from whence.data.dataset import read_image
    from whence.io import read_labels
    from whence.train.run import load

    torch.set_num_threads(threads)
    predictor, source = load(run), read_image(image)
    seen = None if labels is None else read_labels(labels)
    for _ in range(2):
        started = time.perf_counter()
        predictor.predict(source, labels=seen)
        seconds = time.perf_counter() - started
    return seconds, _peak()


def _peak() -> float:
    """Most memory that this process has held, MiB."""
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
