"""Weights and settings: safetensors, YAML and JSON; nothing is ever unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from whence.errors import InputError
from whence.io.atomic import replacing


def save_weights(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write named tensors as safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial)
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}; expected a writable folder with room") from error


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Named tensors of a safetensors file, on the CPU; InputError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected weights (safetensors)")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or not safetensors ({error}); expected weights") from error


def save_yaml(data: Mapping[str, Any], path: str | Path) -> None:
    """Write settings as YAML, in their own order."""
    text = yaml.safe_dump(plain(data), sort_keys=False, allow_unicode=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Settings of a YAML file (safe loader); InputError where it is missing or no mapping."""
    try:
        data = yaml.safe_load(_text(path, "YAML settings"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())}); expected settings") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected settings as name: value; got {type(data).__name__}")
    return data


def save_json(data: Any, path: str | Path) -> None:
    """Write JSON; numbers that are not finite become null."""
    text = json.dumps(plain(data, finite=True), indent=2, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """Content of a JSON file; InputError where it is missing or damaged."""
    try:
        return json.loads(_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); expected a whole file") from error


def plain(data: Any, finite: bool = False) -> Any:
    """NumPy and torch numbers, arrays, paths and tuples as plain Python; with ``finite``, NaN as None."""
    if isinstance(data, Mapping):
        return {str(key): plain(value, finite) for key, value in data.items()}
    if isinstance(data, (np.ndarray, np.generic, torch.Tensor)):
        return plain(data.tolist(), finite)
    if isinstance(data, (list, tuple, set, frozenset)):
        return [plain(value, finite) for value in (sorted(data) if isinstance(data, (set, frozenset)) else data)]
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, float) and finite and not math.isfinite(data):
        return None
    return data


def _text(path: str | Path, what: str) -> str:
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected {what}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error}); expected {what}") from error
