"""Which segments a bank is made of: the one file of it that is ever replaced."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whence.errors import InputError
from whence.io import replacing
from whence.retrieval.space import BankSpace

NAME, UNFINISHED, VERSION = "bank.json", "building.json", 1


@dataclass(frozen=True)
class Manifest:
    """What ``bank.json`` says.

    Args:
        space: where masks are compared.
        plane: of the slices that are the cases of volumes; None where cases are whole images.
        images: whether cases have embeddings of their images.
        approximate: whether segments have an index beside their masks.
        segments: folders, in the order in which they were added.
        removed: rows of segments that are no longer cases.
        origin: what it is built of, in any words that change when that does.
        done: of a bank that is being built, the rows of its table that are in.
    """

    space: BankSpace
    plane: str | None = None
    images: bool = False
    approximate: bool = False
    segments: tuple[str, ...] = ()
    removed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    origin: str = ""
    done: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path, name: str = NAME) -> Manifest:
        """Read a bank's. Raises InputError where there is none, or one that is no manifest of this version."""
        path = folder / name
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["version"] != VERSION:
                raise InputError(f"{path} is of version {plain['version']}; expected {VERSION}: build the bank anew")
            return cls(
                BankSpace.from_dict(plain["space"]),
                plain["plane"],
                plain["images"],
                plain["approximate"],
                tuple(plain["segments"]),
                {key: tuple(rows) for key, rows in plain["removed"].items()},
                plain["origin"],
                tuple(plain["done"]),
            )
        except FileNotFoundError as error:
            raise InputError(f"expected a case bank in {folder}; there is no {path}") from error
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no list of a bank's parts: {type(error).__name__} {error}") from error

    def write(self, folder: Path, name: str = NAME) -> None:
        """Let it take the old one's place, whole."""
        plain: dict[str, Any] = {
            "version": VERSION,
            "space": self.space.to_dict(),
            "plane": self.plane,
            "images": self.images,
            "approximate": self.approximate,
            "segments": list(self.segments),
            "origin": self.origin,
            "removed": {key: list(rows) for key, rows in self.removed.items()},
            "done": list(self.done),
        }
        with replacing(folder / name) as temporary:
            temporary.write_text(json.dumps(plain), encoding="utf-8")
