"""Pix2Pix: translation alone, TraceTrans at alpha = 1 (Isola et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from whence.models.tracetrans import TraceTrans, TraceTransConfig


@dataclass(frozen=True)
class Pix2PixConfig(TraceTransConfig):
    """Options of TraceTrans with the deformation stream left out; those of the deformation do nothing."""

    alpha: float = 1.0
    gamma: float = 0.0
    stream: Literal["dual", "single"] = "single"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.alpha, self.gamma, self.stream) != (1.0, 0.0, "single"):
            raise ValueError(
                f"pix2pix has alpha 1, gamma 0 and a single stream; got {self.alpha}, {self.gamma}, {self.stream!r}"
            )


class Pix2Pix(TraceTrans):
    """Translator without a field of its own."""

    name: ClassVar[str] = "pix2pix"
    config_class: ClassVar[type] = Pix2PixConfig
