"""The code that a table's figures depend on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT.name
# What no figure depends on; beyond it everything does that is named where figures are made.
OUTSIDE = ("__init__.py", "cli.py", "report", "bench/__init__.py", "bench/rows.py", "bench/code.py")


def fingerprint(table: Path, root: Path = ROOT) -> str:
    """Hash of the code of a table's module and of all it reaches, without comments and docstrings.

    A module is reached by an import wherever it stands, or by its name in a string, as registries have it; the
    beginning of a name reaches the folder. Recipes count where their package is reached.
    """
    digest, waiting, reached = hashlib.sha256(), [table], {table}
    while waiting:
        for found in _named(_parsed(waiting.pop()), root):
            inside = found.relative_to(root).as_posix()
            if found not in reached and not any(inside == o or inside.startswith(f"{o}/") for o in OUTSIDE):
                reached.add(found)
                waiting.append(found)
    if root / "recipes" / "__init__.py" in reached:
        reached.update((root / "recipes").glob("*.yaml"))
    for path in sorted(reached - {table}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
    for path in [table, *sorted(reached - {table})]:
        content = ast.dump(_parsed(path)).encode() if path.suffix == ".py" else path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _parsed(path: Path) -> ast.Module:
    """A file's code without docstrings; comments are not in it."""
    return _without_words(path.read_bytes())


@cache
def _without_words(source: bytes) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


def _named(tree: ast.Module, root: Path) -> Iterator[Path]:
    """Files of the package that a module names."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.split(":")[0]]
        for name in names:
            if name.startswith(f"{PACKAGE}.") and name.replace(".", "").isidentifier():
                yield from _files(name, root)


def _files(name: str, root: Path) -> Iterator[Path]:
    """The file of a module, with those of the packages it lies in; all of a folder for a name that ends in a dot."""
    folder = root
    for part in name.split(".")[1:]:
        if not part:
            yield from folder.rglob("*.py")
        elif (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
        if not (folder / part / "__init__.py").is_file():
            return
        folder /= part
        yield folder / "__init__.py"
