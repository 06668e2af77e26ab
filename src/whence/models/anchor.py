"""Mean registration of the general atlas to a group of people, by a network that learns no more."""

from __future__ import annotations

from typing import NamedTuple

import torch

from whence import kernels
from whence.models.amortised import AmortisedRegistration

# Each person's second round finds what the first, held to smooth fields, fell short of.
ROUNDS = 2
# Deviation in voxels of the windows in which a person's brightness and contrast are made the atlas's.
MATCHING_SIGMA = 8.0


class Kept(NamedTuple):
    """What is kept of a person: their field (D, *spatial) and, of a group's rounds, image in atlas space (C, ...)."""

    field: torch.Tensor
    image: torch.Tensor | None = None


class Anchor:
    """Mean registration of the general atlas to people: fields (D, *spatial) in voxels.

    They are velocities if ``diffeomorphic``, else displacements. Each person is registered once; their field and, where
    there are ``group_rounds``, their image in atlas space are kept in half precision and in main memory, 2 (D + C)
    bytes a voxel and person. The atlas and the network have to stay as they are.
    """

    def __init__(self, registration: AmortisedRegistration, group_rounds: int = 0, diffeomorphic: bool = True) -> None:
        self.registration, self.group_rounds, self.diffeomorphic = registration, group_rounds, diffeomorphic
        self.kept: dict[int, Kept] = {}

    def mean(self, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Mean field (B, D, *spatial), in the atlas's precision, onto N people of each of a batch.

        Atlases (B, C, *spatial), all the same; images of people (B, N * C, *spatial) and their numbers (B, N).
        """
        groups = self._groups(atlas, people, who)
        return torch.stack([sum(kept.field.to(atlas) for kept in group) / len(group) for group in groups])

    @torch.no_grad()
    def moved_on(
        self, mean: torch.Tensor, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor
    ) -> torch.Tensor:
        """Mean field (B, D, *spatial), after ``group_rounds`` registrations to the people's mean image in atlas space.

        In it everybody's own noise is averaged away, for which a registration of one person falls short. ``mean`` is
        what ``mean`` answers to the other arguments.
        """
        if not self.group_rounds:
            return mean
        groups = self._groups(atlas, people, who)
        images = [
            sum(kept.image.to(atlas) for kept in group if kept.image is not None) / len(group) for group in groups
        ]
        left = self._rounds(atlas, torch.stack(images), self.group_rounds)
        return mean + left if self.diffeomorphic else kernels.compose(mean, self._displacement(left))

    def _groups(self, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> list[list[Kept]]:
        """What is kept of the people of each of a batch."""
        images = people.unflatten(1, (who.shape[1], -1))
        return [
            [self._of(own[None], image[None], number) for image, number in zip(shown, numbers, strict=True)]
            for own, shown, numbers in zip(atlas, images, who.tolist(), strict=True)
        ]

    def _of(self, atlas: torch.Tensor, person: torch.Tensor, number: int) -> Kept:
        if number not in self.kept:
            field, image = self._found(atlas, person)
            self.kept[number] = Kept(_stored(field), None if image is None else _stored(image))
        return self.kept[number]

    @torch.no_grad()
    def _found(self, atlas: torch.Tensor, person: torch.Tensor) -> Kept:
        """Field (1, D, *spatial) and image in atlas space (1, C, *spatial) of a person (1, C, *spatial)."""
        velocity = self._rounds(atlas, person, ROUNDS)
        field = velocity if self.diffeomorphic else self._displacement(velocity)
        if not self.group_rounds:
            return Kept(field)
        return Kept(field, _match_intensity(kernels.warp(person, self._displacement(-velocity)), atlas))

    def _rounds(self, atlas: torch.Tensor, image: torch.Tensor, count: int) -> torch.Tensor:
        """Velocity (B, D, *spatial) of atlases onto images, each round from where those before it carried the atlas."""
        velocity = self.registration(atlas, image)
        for _ in range(count - 1):
            velocity = velocity + self.registration(kernels.warp(atlas, self._displacement(velocity)), image)
        return velocity

    def _displacement(self, velocity: torch.Tensor) -> torch.Tensor:
        return kernels.exp(velocity, self.registration.squarings)


def _stored(part: torch.Tensor) -> torch.Tensor:
    return part[0].to("cpu", torch.float16)


def _match_intensity(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """An image of the local means and deviations of another; both (B, C, *spatial), of single precision."""
    with torch.autocast(image.device.type, enabled=False):
        image, like = image.float(), like.float()
        means, deviations = [], []
        for seen in (image, like):
            mean = kernels.gaussian(seen, MATCHING_SIGMA)
            means.append(mean)
            variance = kernels.gaussian(seen.square(), MATCHING_SIGMA) - mean.square()
            deviations.append(variance.clamp_min(1e-4).sqrt())
        return (image - means[0]) / deviations[0] * deviations[1] + means[1]
