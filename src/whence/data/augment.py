"""Random changes of a batch that leave its correspondences true."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Augmentation:
    """What may change from step to step.

    Args:
        flip: flip left and right in half of the samples.
        gamma: largest change of the source's contrast exponent, as a factor; 0 for none.
        noise: largest standard deviation of noise added to the source, on the scale [-1, 1].
    """

    flip: bool = True
    gamma: float = 0.15
    noise: float = 0.02

    def __call__(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Augmented copy of a batch of images (B, C, *spatial) in [-1, 1]; axis 0 is left-right."""
        source = batch["source"]
        count = source.shape[0]
        shape = (count, *[1] * (source.ndim - 1))

        def draw() -> torch.Tensor:
            return torch.rand(count, generator=generator).reshape(shape).to(source)

        changed = dict(batch)
        if self.flip:
            turn = draw() < 0.5
            # What is no image, as conditions are, stays.
            changed |= {
                name: torch.where(turn, image.flip(2), image)
                for name, image in changed.items()
                if image.ndim == source.ndim
            }
        if self.gamma > 0:
            exponent = torch.exp((2 * draw() - 1) * self.gamma)
            changed["source"] = 2 * ((changed["source"] + 1) / 2).clamp_min(0) ** exponent - 1
        if self.noise > 0:
            noise = torch.randn(source.shape, generator=generator).to(source)
            changed["source"] = (changed["source"] + draw() * self.noise * noise).clamp(-1, 1)
        return changed
