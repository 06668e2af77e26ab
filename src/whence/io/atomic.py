"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whence.errors import InputError


def extension(path: str | Path) -> str:
    """Lower-case file extension; ``.nii.gz``, ``.mrk.json`` and their kind count as one."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    joined = "".join(suffixes[-2:])
    return joined if joined in (".nii.gz", ".mrk.json") else (suffixes[-1] if suffixes else "")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same extension, that takes its place on success.

    Missing parent folders are made. Whatever interrupts the block (KeyboardInterrupt included), the
    temporary file goes and an existing ``path`` stays as it was.
    Raises InputError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    suffix = extension(path)
    partial = path.parent / f".{path.name[: len(path.name) - len(suffix)]}.{secrets.token_hex(4)}{suffix}"
    try:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; expected a file's name")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writers in C++ report a closed folder in many ways; opening the file here gives one.
        partial.touch(exist_ok=False)
        yield partial
        if not partial.exists() or partial.stat().st_size == 0:
            raise InputError(f"cannot write {path}: nothing reached the disk; expected room and the right to write")
        os.replace(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder whose files move into ``path`` on success; on failure nothing changes.

    ``path`` is made if needed; other files in it stay, files of the same name are replaced.
    Raises InputError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    stage: Path | None = None
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"cannot write into {path}: it is a file; expected a folder")
        # Inside an existing folder, whose own parent may well be closed to us.
        home = path if path.is_dir() else path.parent
        home.mkdir(parents=True, exist_ok=True)
        stage = home / f".{path.name}.{secrets.token_hex(4)}"
        stage.mkdir()
        yield stage
        _move_into(stage, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def unwritable(path: Path, error: Exception) -> InputError:
    """The sentence for a place that could not be written."""
    reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1:] or "unknown reason"
    reason = reason if isinstance(reason, str) else reason[0]
    return InputError(f"cannot write {path}: {reason}; expected a writable folder with room on its disk")


def _move_into(stage: Path, target: Path) -> None:
    files = [p for p in sorted(stage.rglob("*")) if p.is_file()]
    for file in files:
        there = target / file.relative_to(stage)
        if there.is_dir():
            raise InputError(f"cannot write {there}: it is a folder; expected a file's name")
    for file in files:
        there = target / file.relative_to(stage)
        there.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, there)
    target.mkdir(parents=True, exist_ok=True)
