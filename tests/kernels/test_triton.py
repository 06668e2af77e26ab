"""The GPU kernels against the reference: on a GPU, or by Triton's interpreter where there is none; the dispatcher."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import triton_cases as cases

from whence.kernels import dispatch

GPU = torch.cuda.is_available()
HERE = Path(__file__).parent

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
needs_gpu = pytest.mark.skipif(not GPU, reason="there is no GPU here")
needs_none = pytest.mark.skipif(GPU, reason="a GPU runs the kernels themselves")


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)


def run(script, *arguments, **environment):
    """Run a script, since Triton reads how it is to run when it is imported."""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What each case says in the interpreter: name -> nothing, or its failure."""
    result = tmp_path_factory.mktemp("triton") / "result.json"
    done = run("triton_cases.py", str(result), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text(encoding="utf-8"))


@needs_triton
@needs_gpu
@pytest.mark.parametrize("name", cases.CASES if GPU else ["on a GPU"])
def test_on_a_gpu(name):
    function, shape = cases.CASES[name]
    function(shape)


@needs_triton
@needs_none
@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_by_the_interpreter(interpreted, name):
    said = {case: text for case, text in interpreted.items() if case.partition("-")[0] == name}
    assert len(said) == len(cases.INTERPRETED_SHAPES)
    assert not any(said.values()), "\n".join(said.values())


@pytest.mark.slow
@needs_triton
@needs_none
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path):
    done = run("triton_compile.py", TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 30


@needs_triton
@needs_gpu
def test_a_gpus_tensors_get_its_kernels():
    image = torch.zeros(1, 1, 4, 4, device="cuda")
    assert dispatch.backend(image) == "cuda"
    assert dispatch.backend(image.double()) == "reference"
    assert dispatch.backend(image, image.cpu()) == "reference"


def test_a_cpus_tensors_never_do(monkeypatch):
    image = torch.zeros(1, 1, 4, 4)
    assert dispatch.backend(image) == "cpu"
    monkeypatch.setenv(dispatch.VARIABLE, "cuda")
    assert dispatch.backend(image) == "reference"


def test_importing_whence_leaves_triton_alone():
    code = "import sys, whence, whence.field, whence.losses; sys.exit('triton' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_without_triton_the_reference_serves_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "whence.kernels.cuda.launch", raising=False)
    with pytest.warns(UserWarning, match="slow kernels on this cuda: .*triton"):
        assert not dispatch._installed.__wrapped__("cuda")


@needs_triton
@needs_none
def test_where_triton_does_not_start_the_reference_serves_a_gpu(monkeypatch):
    """As on a GPU's machine without a C compiler, which Triton needs."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, "whence.kernels.cuda.launch", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.warns(UserWarning, match="slow kernels on this cuda: Triton does not start"):
        assert not dispatch._installed.__wrapped__("cuda")
