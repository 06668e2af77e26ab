"""The floors hold: no import runs upward, disk is reached through one door, the core is functional and silent."""

import ast
from pathlib import Path

import pytest

import whence

ROOT = Path(whence.__file__).parent
FLOORS = (
    "errors",
    "memory",
    "recipes",
    "space",
    "kernels",
    "field",
    "io",
    "losses",
    "metrics",
    "trace",
    "nets",
    "retrieval",
    "registration",
    "data",
    "report",
    "models",
    "train",
    "bench",
    "cli",
)
# The package's front gathers public names from every floor, and the entry point starts the command line.
FRONT = ("__init__", "__main__")
FILES = sorted(ROOT.rglob("*.py"))


def floor_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def package_of(path):
    parts = ("whence", *path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1]


def imported(tree, package):
    """(line, full dotted name) of everything a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "importlib.import_module", "__import__"):
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            yield node.lineno, str(name)


def called(node):
    """Dotted name of what a call calls, as far as it is one."""
    parts, target = [], node.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    if isinstance(target, ast.Name):
        parts.append(target.id)
    return ".".join(reversed(parts))


@pytest.fixture(params=FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def source(request):
    return request.param, ast.parse(request.param.read_text(encoding="utf-8"))


def test_every_file_stands_on_a_floor(source):
    path, _ = source
    assert floor_of(path) in (*FLOORS, *FRONT)


def test_no_import_runs_upward(source):
    path, tree = source
    floor = floor_of(path)
    if floor in FRONT:
        pytest.skip("the front may name every floor")
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    for line, name in imported(tree, package_of(path)):
        parts = name.split(".")
        if parts[0] == "whence" and name != "whence.__version__":
            # `import whence` alone would reach every floor through the front.
            assert len(parts) > 1, f"{path}:{line} imports the whole package"
            assert parts[1] in allowed, f"{path}:{line} ({floor}) imports {name}"


def test_only_io_reaches_the_disk_formats(source):
    path, tree = source
    if floor_of(path) == "io":
        return
    for line, name in imported(tree, package_of(path)):
        assert name.split(".")[0] not in ("nibabel", "SimpleITK", "itk", "pydicom"), f"{path}:{line} imports {name}"


def test_the_core_holds_no_layers(source):
    path, tree = source
    if floor_of(path) not in ("space", "kernels", "field"):
        return
    for line, name in imported(tree, package_of(path)):
        layers = name.startswith("torch.nn") and not name.startswith("torch.nn.functional")
        assert not layers, f"{path}:{line} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr != "nn", f"{path}:{node.lineno} uses torch.nn"


def test_only_cli_and_train_print(source):
    path, tree = source
    if floor_of(path) in ("cli", "train", "__main__"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = called(node)
            assert name not in ("print", "rich.print", "pprint", "sys.stdout.write", "sys.stderr.write"), (
                f"{path}:{node.lineno} prints"
            )
            assert name.split(".")[-1] != "Console", f"{path}:{node.lineno} makes a console"
    for line, name in imported(tree, package_of(path)):
        assert name not in ("rich.print", "rich.console.Console"), f"{path}:{line} imports {name}"


def test_nothing_is_unpickled(source):
    path, tree = source
    for line, name in imported(tree, package_of(path)):
        assert name.split(".")[0] not in ("pickle", "dill", "joblib"), f"{path}:{line} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) == "torch.load":
            safe = [k.value for k in node.keywords if k.arg == "weights_only"]
            assert safe, f"{path}:{node.lineno} loads without weights_only"
            assert isinstance(safe[0], ast.Constant), f"{path}:{node.lineno} decides weights_only elsewhere"
            assert safe[0].value is True, f"{path}:{node.lineno} unpickles"


def test_the_walk_sees_what_it_must():
    tree = ast.parse("def f():\n    from whence.cli import main\n    from ..train import x\n    from .. import bench\n")
    names = [name for _, name in imported(tree, ("whence", "space"))]
    assert names == ["whence.cli.main", "whence.train.x", "whence.bench"]
    assert len(FILES) > 20
