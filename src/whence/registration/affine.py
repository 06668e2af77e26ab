"""Affine registration: several starts looked at coarsely, the best ones followed to finer levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from whence import kernels
from whence.losses import Similarity, make_similarity
from whence.registration.intensity import scaled
from whence.registration.pyramid import Seen, coarser, finest, presence, region, seen_on
from whence.registration.settings import AffineSettings
from whence.registration.start import starts
from whence.space import Volume

Progress = Callable[[str, int, int, float], None]
# Share of the lighter image's weight that must meet the other for a start to count.
OVERLAP = 0.3
# Longest side, mm, from which on a field of view is looked at by the settings' spacings; smaller ones scale them.
LARGE = 160.0


def register_affine(
    fixed: Volume,
    moving: Volume,
    similarity: Similarity | None = None,
    settings: AffineSettings | None = None,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Affine (D+1, D+1) from world points (RAS mm) of ``fixed`` to those of ``moving``.

    ``similarity`` is NMI by default, which suits one modality and two. The images may have any grids,
    orientations and spacings, and lie anywhere in their worlds. Masks, on the grids of their images, say where
    they are compared; what lies outside the moving image is not, unless it ends in plain background.
    """
    similarity, settings = similarity or make_similarity("nmi"), settings or AffineSettings()
    fixed, moving = scaled(fixed, fixed_mask), scaled(moving, moving_mask)
    whole = region(fixed, fixed_mask)
    there = presence(moving, moving_mask)
    share = min(1.0, float(np.max(np.asarray(whole.shape) * whole.spacing)) / LARGE)
    stages: dict[float, int] = {}
    for spacing, iterations in zip(settings.spacings, settings.iterations, strict=True):
        reached = max(spacing * share, finest(whole))
        stages[reached] = stages.get(reached, 0) + iterations
    candidates: list[np.ndarray] = []
    for number, (spacing, iterations) in enumerate(stages.items()):
        grid = coarser(whole, spacing)
        stage = _Stage.of(seen_on(grid, fixed, fixed_mask, moving_mask is None), moving, there, similarity)
        if number == 0:
            tried = starts(fixed, moving, _weight(fixed, fixed_mask), _weight(moving, moving_mask))
            order = sorted((stage.look(matrix), index) for index, matrix in enumerate(tried))
            candidates = [tried[index] for _, index in order[: settings.search]]
        name = f"affine {spacing:.3g} mm"
        followed = [stage.follow(matrix, iterations, settings.step, name, progress) for matrix in candidates]
        candidates = [min(followed, key=lambda pair: pair[0])[1]]
    return candidates[0]


@dataclass(frozen=True, eq=False)
class _Stage:
    """A level, and how an affine is judged on it. Coordinates are halves of the field of view from its centre."""

    fixed: Seen
    moving: Seen
    similarity: Similarity
    points: torch.Tensor
    centre: np.ndarray
    extent: float

    @classmethod
    def of(cls, level: Seen, moving: Volume, mask: Volume | None, similarity: Similarity) -> _Stage:
        seen = seen_on(coarser(moving.grid, float(min(level.grid.spacing))), moving, mask)
        centre = level.grid.centre
        extent = max(float(np.max(np.asarray(level.grid.shape) * level.grid.spacing)) / 2, 1e-6)
        indices = np.stack(np.meshgrid(*map(np.arange, level.grid.shape), indexing="ij"), axis=-1)
        world = (level.grid.to_world(indices.astype(np.float64)) - centre) / extent
        points = torch.from_numpy(np.moveaxis(world, -1, 0)[None].astype(np.float32)).contiguous()
        return cls(level, seen, similarity, points, centre, extent)

    def judge(self, linear: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Energy of an affine, and the share of the lighter image's weight that meets the other's."""
        dims = self.fixed.grid.dims
        places = (linear @ self.points.reshape(dims, -1)).reshape(self.points.shape)
        coordinates = places + offset.reshape(1, dims, *[1] * dims)
        warped = kernels.sample(self.moving.image, coordinates)
        weight, overlap = self.fixed.weight, 1.0
        if self.moving.weight is not None:
            there = kernels.sample(self.moving.weight, coordinates.detach(), "linear", "zeros")
            weight = there if weight is None else there * weight
            overlap = float(weight.sum()) / self.lighter
        return self.similarity(warped, self.fixed.image, weight), overlap

    @cached_property
    def lighter(self) -> float:
        """The weight of the image that has less of it, in voxels of the fixed one."""
        found = []
        for seen in (self.fixed, self.moving):
            count = math.prod(seen.grid.shape) if seen.weight is None else float(seen.weight.sum())
            found.append(count * float(np.prod(seen.grid.spacing / self.fixed.grid.spacing)))
        return max(min(found), 1e-6)

    def inside(self, matrix: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """A world matrix as the linear part and offset from points to voxels of the moving image."""
        dims = self.fixed.grid.dims
        place = np.eye(dims + 1)
        place[:dims, :dims] *= self.extent
        place[:dims, dims] = self.centre
        change = np.linalg.solve(self.moving.grid.affine, matrix @ place)
        return torch.from_numpy(change[:dims, :dims]).float(), torch.from_numpy(change[:dims, dims]).float()

    def outside(self, linear: torch.Tensor, offset: torch.Tensor) -> np.ndarray:
        """The world matrix of a linear part and an offset."""
        dims = self.fixed.grid.dims
        change, place = np.eye(dims + 1), np.eye(dims + 1)
        change[:dims, :dims], change[:dims, dims] = linear.double().numpy(), offset.double().numpy()
        place[:dims, :dims] /= self.extent
        place[:dims, dims] = -self.centre / self.extent
        return self.moving.grid.affine @ change @ place

    def look(self, matrix: np.ndarray) -> float:
        """Energy of a matrix; infinite where it leaves the moving image."""
        with torch.no_grad():
            energy, overlap = self.judge(*self.inside(matrix))
        return float(energy) if overlap >= OVERLAP and math.isfinite(float(energy)) else math.inf

    def follow(
        self, matrix: np.ndarray, iterations: int, step: float, name: str, progress: Progress | None
    ) -> tuple[float, np.ndarray]:
        """The energy and the matrix that gradient steps of falling length end in."""
        start_linear, start_offset = self.inside(matrix)
        linear, offset = start_linear.clone().requires_grad_(), start_offset.clone().requires_grad_()
        # A step of 1 moves the edge of the image by a voxel, through the offset or any entry of the linear part.
        optimiser = torch.optim.Adam([linear, offset], lr=step, betas=(0.9, 0.98))
        best = (self.look(matrix), matrix)
        for iteration in range(iterations):
            optimiser.param_groups[0]["lr"] = step * (0.05 + 0.95 * math.cos(0.5 * math.pi * iteration / iterations))
            with torch.enable_grad():
                energy, overlap = self.judge(linear, offset)
            if not math.isfinite(float(energy.detach())) or overlap < OVERLAP:
                break
            if progress is not None:
                progress(name, iteration, iterations, float(energy.detach()))
            optimiser.zero_grad()
            energy.backward()
            optimiser.step()
        found = self.outside(linear.detach(), offset.detach())
        if np.isfinite(found).all() and abs(np.linalg.det(found[:-1, :-1])) > 1e-3:
            best = min(best, (self.look(found), found), key=lambda pair: pair[0])
        return best


def _weight(volume: Volume, mask: Volume | None) -> torch.Tensor:
    """What a voxel counts for in centres and extents, (*spatial): its intensity above the background's, masked."""
    above = volume.tensor[0, 0] + 1
    return above if mask is None else above * mask.tensor[0, 0]
