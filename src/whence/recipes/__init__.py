"""Settings: one YAML a published setting, one a CPU-sized setting; named METHOD-SETTING."""

from __future__ import annotations

from pathlib import Path


def recipe(name: str) -> Path | None:
    """Path of a recipe by its name without ending, or None."""
    path = Path(__file__).parent / f"{name}.yaml"
    return path if path.is_file() else None


def recipe_names(method: str) -> list[str]:
    """Names of a method's recipes that come with the package."""
    return sorted(path.stem for path in Path(__file__).parent.glob(f"{method}-*.yaml"))
