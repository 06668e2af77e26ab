"""Where the people of a cohort lie from the general atlas, by a registration network that learns no more."""

from __future__ import annotations

import torch

from whence import kernels
from whence.models.amortised import AmortisedRegistration


class Anchor:
    """Fields (D, *spatial), voxels, of the general atlas onto people, in two rounds, each found once and kept.

    They are velocities or, if not ``diffeomorphic``, displacements. What is left after the first round is what the
    registration, held to smooth fields, falls short of. They are kept in half precision and in main memory, 2 D bytes
    a voxel and person; the atlas and the network have to stay as they are.
    """

    def __init__(self, registration: AmortisedRegistration, diffeomorphic: bool = True) -> None:
        self.registration, self.diffeomorphic = registration, diffeomorphic
        self.kept: dict[int, torch.Tensor] = {}

    def mean(self, atlas: torch.Tensor, people: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Mean field (B, D, *spatial), in the atlas's precision, onto N people of each of a batch.

        Atlases (B, C, *spatial), all the same; images of people (B, N * C, *spatial) and their numbers (B, N).
        """
        images = people.unflatten(1, (who.shape[1], -1))
        found = []
        for own, shown, numbers in zip(atlas, images, who.tolist(), strict=True):
            fields = (self._of(own[None], one[None], n) for one, n in zip(shown, numbers, strict=True))
            found.append(sum(field.to(atlas) for field in fields) / len(numbers))
        return torch.stack(found)

    def _of(self, atlas: torch.Tensor, person: torch.Tensor, number: int) -> torch.Tensor:
        if number not in self.kept:
            self.kept[number] = self._found(atlas, person)[0].to("cpu", torch.float16)
        return self.kept[number]

    @torch.no_grad()
    def _found(self, atlas: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
        ask = self.registration
        if not self.diffeomorphic:
            first = ask.moved(atlas, person)
            return kernels.compose(ask.moved(kernels.warp(atlas, first), person), first)
        velocity = ask(atlas, person)
        return velocity + ask(kernels.warp(atlas, kernels.exp(velocity, ask.squarings)), person)
