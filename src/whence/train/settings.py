"""How a run is trained, whatever its method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run.

    Args:
        steps: updates in all.
        batch_size: samples a step, on each device.
        seed: of weights, order and augmentation.
        size: shape of the training lattice in voxels; that of the largest image if empty.
        spacing: mm between the voxels of the training lattice; the images' median if empty.
        rescale: choose the spacing at which the largest image fills the size.
        dims: 2 or 3; that of the images if not given.
        plane: axial, coronal or sagittal: train a 2D model on the slices of volumes.
        columns: what the table calls its files, where by other names: {source: ct1} learns from another sequence.
        save_every: steps between checkpoints.
        schedule: learning rate over the run, or over each stage of a method that learns in stages: constant, linear
            (falls to 0 over the second half) or cosine.
        flip: flip left and right at random.
        gamma_range: largest random change of the source's contrast exponent.
        noise: largest standard deviation of noise added to the source.
        accelerator: Lightning's accelerator: auto, cpu, gpu, mps.
        devices: number of devices.
        precision: Lightning's precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads; the machine's default if 0.
        validation_samples: held-out samples looked at with each checkpoint.
    """

    steps: int = 4500
    batch_size: int = 1
    seed: int = 0
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    rescale: bool = False
    dims: Literal[2, 3] | None = None
    plane: Literal["axial", "coronal", "sagittal"] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    save_every: int = 100
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    flip: bool = True
    gamma_range: float = 0.15
    noise: float = 0.02
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    threads: int = 0
    validation_samples: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "spacing", tuple(self.spacing))
        for name in ("steps", "batch_size", "save_every", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("threads", "validation_samples", "gamma_range", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if abs(self.seed) >= 2**63:
            raise ValueError(f"seed is a whole number below 2^63; got {self.seed}")
        if self.size and min(self.size) < 1:
            raise ValueError(f"size holds voxels, at least 1 a side; got {list(self.size)}")
        if not all(0 < s < float("inf") for s in self.spacing):
            raise ValueError(f"spacing holds mm above 0; got {list(self.spacing)}")
