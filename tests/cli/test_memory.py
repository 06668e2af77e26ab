"""Freed memory stays with the process of a command, and nowhere else."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
if "keep" in sys.argv:
    from whence.memory import keep_freed_memory
    print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def run(*words, **variables):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True, env={**variables}
    )
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tells glibc's malloc")
def test_pages_are_not_faulted_in_again():
    (without,) = run()
    told, kept = run("keep")
    if told == "False":
        pytest.skip("the C library is not glibc")
    # 64 MB are 16,384 pages, or 32 large ones.
    assert int(kept) < 16 < 20 * 32 <= int(without)
    assert run("keep", WHENCE_KEEP_MEMORY="0")[0] == "False"
