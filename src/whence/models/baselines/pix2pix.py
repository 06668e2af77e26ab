"""Pix2Pix: translation alone, TraceTrans at alpha = 1 (Isola et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from whence.models.tracetrans import TraceTrans, TraceTransConfig


@dataclass(frozen=True)
class Pix2PixConfig(TraceTransConfig):
    """Options of TraceTrans with the deformation stream left out."""

    alpha: float = 1.0
    gamma: float = 0.0
    stream: Literal["dual", "single"] = "single"


class Pix2Pix(TraceTrans):
    """Translator without a field of its own."""

    name: ClassVar[str] = "pix2pix"
    config_class: ClassVar[type] = Pix2PixConfig
