"""Checkpoints that appear whole, with the one before kept, and are never unpickled beyond tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from whence.errors import InputError
from whence.io import replacing

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's way to disk: written beside its place and renamed into it; the one before stays."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        # Lightning's own writer passes through the system's temporary folder, which a rename cannot leave.
        with replacing(path) as partial:
            with partial.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:
                    # On a full disk torch complains of the archive it could not end.
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
                file.flush()
                os.fsync(file.fileno())
            if path.is_file():
                os.replace(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has anything to go on from."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def latest_checkpoint(folder: Path, expected: Mapping[str, torch.Tensor]) -> Path | None:
    """The newest whole checkpoint of a run, None where there is none to go on from.

    ``expected`` are the weights of the run's modules. Raises InputError for a file that holds more than
    tensors and plain values, which is not opened further, and for one of another model.
    """
    for torn in folder.glob(f".{Path(LAST).stem}.*.ckpt"):
        torn.unlink(missing_ok=True)
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.is_file():
            continue
        content = _content(path)
        if content is None:
            print(f"{path} is damaged and is passed over", file=sys.stderr)
            continue
        _check(path, content, expected)
        return path
    return None


def _content(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        with path.open("rb") as file:
            start = file.read(4)
        # A zip file or a pickle that can be followed, only to something other than data.
        if type(error).__name__ == "UnpicklingError" and (start == b"PK\x03\x04" or start[:1] == b"\x80"):
            raise InputError(
                f"{path} holds more than tensors and plain values and was not loaded; expected a checkpoint of this run"
            ) from error
        return None


def _check(path: Path, content: Any, expected: Mapping[str, torch.Tensor]) -> None:
    if not isinstance(content, dict) or not {"state_dict", "optimizer_states", "loops", "epoch"} <= content.keys():
        raise InputError(f"{path} is no training checkpoint; expected one that this run wrote")
    weights = content["state_dict"]
    shapes, wanted = ({name: tuple(w.shape) for name, w in part.items()} for part in (weights, expected))
    for name in {**wanted, **shapes}:
        if shapes.get(name) != wanted.get(name):
            raise InputError(
                f"{path} is of another model: weight {name!r} is {shapes.get(name)}, expected {wanted.get(name)}"
            )
