"""What a prediction costs, measured in a process that does nothing else."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path


def cost(run: Path, image: Path, labels: Path | None = None, threads: int = 2) -> tuple[float, float]:
    """Seconds of the second prediction of an image, its trace included, and the process's peak memory in MiB.

    The first prediction compiles. The memory is all that the process held, libraries and weights as well.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, run, image, labels, threads).result()


def _measured(run: Path, image: Path, labels: Path | None, threads: int) -> tuple[float, float]:
    import resource
    import sys

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)
