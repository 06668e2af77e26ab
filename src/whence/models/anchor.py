"""Where the people of a cohort lie from the general atlas, by a registration network that learns no more."""

from __future__ import annotations

import torch

from whence import kernels
from whence.models.amortised import AmortisedRegistration

# Each person's second round finds what the first, held to smooth fields, fell short of.
ROUNDS = 2
# Deviation in voxels of the windows in which a person's brightness and contrast are made the atlas's.
MATCHED = 8.0


class Anchor:
    """The field (D, *spatial), voxels, that carries the general atlas into the middle of some people.

    They are velocities or, if not ``diffeomorphic``, displacements. Each person is registered once; their field and, if
    there are ``group_rounds``, their picture, carried back onto the atlas and locally as bright as that, are kept in
    half precision and in main memory, 2 (D + C) bytes a voxel and person. The atlas and the network have to stay as
    they are.
    """

    def __init__(self, registration: AmortisedRegistration, group_rounds: int = 0, diffeomorphic: bool = True) -> None:
        self.registration, self.group_rounds, self.diffeomorphic = registration, group_rounds, diffeomorphic
        self.kept: dict[int, tuple[torch.Tensor, ...]] = {}

    def mean(self, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Mean field (B, D, *spatial), in the atlas's precision, onto N people of each of a batch.

        Atlases (B, C, *spatial), all the same; images of people (B, N * C, *spatial) and their numbers (B, N).
        """
        return self._mean(0, atlas, people, who)

    @torch.no_grad()
    def middle(self, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """The same, and what the mean picture of the people, carried back by their fields, is still off the atlas.

        In it everybody's own noise is averaged away, which keeps a registration of one person from going the whole way.
        """
        mean = self.mean(atlas, people, who)
        if not self.group_rounds:
            return mean
        left = self._rounds(atlas, self._mean(1, atlas, people, who), self.group_rounds)
        return mean + left if self.diffeomorphic else kernels.compose(mean, self._moves(left))

    def _mean(self, part: int, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Mean (B, ., *spatial) of what is kept of people: 0 their fields, 1 their pictures."""
        images = people.unflatten(1, (who.shape[1], -1))
        found = []
        for own, shown, numbers in zip(atlas, images, who.tolist(), strict=True):
            parts = (self._of(own[None], one[None], n)[part] for one, n in zip(shown, numbers, strict=True))
            found.append(sum(kept.to(atlas) for kept in parts) / len(numbers))
        return torch.stack(found)

    def _of(self, atlas: torch.Tensor, person: torch.Tensor, number: int) -> tuple[torch.Tensor, ...]:
        if number not in self.kept:
            self.kept[number] = tuple(part[0].to("cpu", torch.float16) for part in self._found(atlas, person))
        return self.kept[number]

    @torch.no_grad()
    def _found(self, atlas: torch.Tensor, person: torch.Tensor) -> tuple[torch.Tensor, ...]:
        velocity = self._rounds(atlas, person, ROUNDS)
        field = velocity if self.diffeomorphic else self._moves(velocity)
        if not self.group_rounds:
            return (field,)
        return field, _matched(kernels.warp(person, self._moves(-velocity)), atlas)

    def _rounds(self, atlas: torch.Tensor, image: torch.Tensor, count: int) -> torch.Tensor:
        """Velocity of the atlas onto an image, each round from where the ones before it have carried the atlas."""
        velocity = self.registration(atlas, image)
        for _ in range(count - 1):
            velocity = velocity + self.registration(kernels.warp(atlas, self._moves(velocity)), image)
        return velocity

    def _moves(self, velocity: torch.Tensor) -> torch.Tensor:
        return kernels.exp(velocity, self.registration.squarings)


def _matched(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """An image of the local means and deviations of another; both (B, C, *spatial)."""
    means, deviations = [], []
    for seen in (image, like):
        mean = kernels.gaussian(seen, MATCHED)
        means.append(mean)
        deviations.append((kernels.gaussian(seen.square(), MATCHED) - mean.square()).clamp_min(1e-4).sqrt())
    return (image - means[0]) / deviations[0] * deviations[1] + means[1]
