"""Remapping of intensities: Shuffle Remap (IMSE, Algorithm 1, Eq. 8), Bezier curves, and the map to another image.

The random ones change how an image looks and leave where things are; they take images (B, C, *spatial) in [-1, 1],
draw one map for each channel of each image from an explicit generator and return the same shape in [-1, 1].
"""

from __future__ import annotations

import torch


def shuffle_remap(
    image: torch.Tensor, generator: torch.Generator, control_points: tuple[int, int] = (2, 20)
) -> torch.Tensor:
    """The range [-1, 1] cut at random points, its segments permuted, each mapped linearly onto its new place.

    ``control_points`` are the least and the largest number of cuts; with p the sorted ends of the segments and
    segment j the place of segment i, x' = (x - p_i) / (p_{i+1} - p_i) (p_{j+1} - p_j) + p_j. The last
    segment holds its upper end too, so that every voxel is mapped.
    """
    ends, order, cuts = draw_shuffle(image.shape[0] * image.shape[1], generator, control_points)
    return apply_shuffle(image, ends, order, cuts)


def draw_shuffle(
    count: int, generator: torch.Generator, control_points: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Segments of ``count`` maps: ends (count, K + 2) from -1 to 1, permutation (count, K + 1), cuts (count,).

    K is the largest number of cuts. A map with fewer of them, ``cuts``, has its further ends at 1: segments without
    width, which keep their places.
    """
    least, most = control_points
    cuts = torch.randint(least, most + 1, (count, 1), generator=generator)
    number = torch.arange(most + 1).expand(count, -1)
    points = 2 * torch.rand((count, most), generator=generator) - 1
    points = points.masked_fill(number[:, :most] >= cuts, 1.0).sort(dim=1).values
    one = torch.ones((count, 1))
    keys = torch.rand((count, most + 1), generator=generator)
    order = keys.masked_fill(number > cuts, 2.0).argsort(dim=1, stable=True)
    return torch.cat([-one, points, one], dim=1), order, cuts[:, 0]


def apply_shuffle(image: torch.Tensor, ends: torch.Tensor, order: torch.Tensor, cuts: torch.Tensor) -> torch.Tensor:
    """Images mapped by the segments of ``draw_shuffle``, one map a channel of each."""
    values = image.reshape(len(ends), -1).clamp(-1, 1)
    ends, order = ends.to(values), order.to(values.device)
    segment = torch.searchsorted(ends, values.contiguous(), right=True) - 1
    segment = segment.minimum(cuts.to(segment)[:, None])
    place = order.gather(1, segment)
    low, high = ends.gather(1, segment), ends.gather(1, segment + 1)
    new_low, new_high = ends.gather(1, place), ends.gather(1, place + 1)
    share = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return (share * (new_high - new_low) + new_low).reshape(image.shape)


def bezier_remap(image: torch.Tensor, generator: torch.Generator, samples: int = 512) -> torch.Tensor:
    """A monotone cubic Bezier curve from (-1, -1) to (1, 1) with random control points, reversed in half of the cases.

    The remapping of Models Genesis (Zhou et al. 2019), the comparison BC of IMSE's tables.
    """
    count = image.shape[0] * image.shape[1]
    control = 2 * torch.rand((count, 2, 2), generator=generator) - 1
    backwards = torch.rand((count, 1), generator=generator) < 0.5
    t = torch.linspace(0, 1, samples)
    first, second, last = 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    start = -((1 - t) ** 3)
    x, y = (start + control[:, :1, k] * first + control[:, 1:, k] * second + last for k in (0, 1))
    y = torch.where(backwards, -y, y)
    values = image.reshape(count, -1).clamp(-1, 1)
    x, y = x.to(values).contiguous(), y.to(values)
    above = torch.searchsorted(x, values.contiguous()).clamp(1, samples - 1)
    low, high = x.gather(1, above - 1), x.gather(1, above)
    share = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return torch.lerp(y.gather(1, above - 1), y.gather(1, above), share).reshape(image.shape)


def conditional_mean(image: torch.Tensor, reference: torch.Tensor, bins: int = 48) -> torch.Tensor:
    """E[reference | image] at every voxel: the image in the contrast that the reference has where they overlap.

    The map is one of intensities alone, linear between ``bins`` levels, for each channel of each image by
    itself. Gradients pass to both images, through the map as well.
    """
    count = image.shape[0] * image.shape[1]
    place = ((image.reshape(count, -1) + 1) / 2 * (bins - 1)).clamp(0, bins - 1)
    below = place.detach().floor().clamp(max=bins - 2)
    share, index = place - below, below.long()
    values = reference.reshape(count, -1).to(place.dtype)
    weight, total = place.new_zeros((count, bins)), place.new_zeros((count, bins))
    for step, part in ((0, 1 - share), (1, share)):
        weight = weight.scatter_add(1, index + step, part)
        total = total.scatter_add(1, index + step, part * values)
    # A level that no voxel has takes the mean, which nobody asks for.
    mean = (total + 1e-3 * values.mean(dim=1, keepdim=True)) / (weight + 1e-3)
    return torch.lerp(mean.gather(1, index), mean.gather(1, index + 1), share).reshape(image.shape)
