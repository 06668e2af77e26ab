"""A segmenter of one domain, and the features by which its images are compared with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from whence.data.dataset import read_image
from whence.data.frame import Intensity
from whence.data.pairs import PairsTable
from whence.data.perturbation import Perturbation
from whence.field import resample
from whence.io import read_labels, replacing
from whence.kernels import warp
from whence.nets import Decoder, Encoder
from whence.nets.pyramid import CONV
from whence.space import Volume

FEATURES = (16, 32, 64, 96)


class Segmenter(nn.Module):
    """U-Net from an image of one domain to its labels; the mean of its deepest features describes the image."""

    def __init__(self, dims: int, labels: Sequence[int]) -> None:
        super().__init__()
        self.labels = (0, *labels)
        self.encoder = Encoder(dims, 1, FEATURES)
        self.decoder = Decoder(dims, FEATURES)
        self.head = CONV[dims](FEATURES[0], len(self.labels), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (B, labels, *spatial) of images (B, 1, *spatial) in [-1, 1]."""
        return self.head(self.decoder(self.encoder(images)))

    @torch.no_grad()
    def segment(self, volume: Volume) -> Volume:
        """Labels of an image of any intensity scale, on its own grid."""
        values = torch.tensor(self.labels, dtype=torch.int32)
        return volume.with_tensor(values[self(_scaled(volume)).argmax(dim=1, keepdim=True)])

    @torch.no_grad()
    def describe(self, volumes: Sequence[Volume]) -> torch.Tensor:
        """Features (N, F) of images on one grid."""
        deepest = [self.encoder(_scaled(volume))[-1] for volume in volumes]
        return torch.cat([features.flatten(2).mean(dim=2) for features in deepest])


def segmenter(
    rows: PairsTable, labels: Sequence[int], kept: Path, steps: int = 1200, batch: int = 8, seed: int = 0
) -> Segmenter:
    """A segmenter trained on images of a table (``source``, ``source_labels``), or the one that lies in ``kept``.

    Cross entropy and Dice; images are moved and their contrast is changed a little. Adam, 2e-3 with a cosine.
    """
    torch.manual_seed(seed)
    net = Segmenter(read_image(rows.rows[0].path("source")).dims, labels)
    if kept.is_file():
        net.load_state_dict(torch.load(kept, weights_only=True))
        return net.eval()
    images = [read_image(row.path("source")) for row in rows]
    shown = torch.cat([_scaled(image) for image in images])
    places = {label: place for place, label in enumerate(net.labels)}
    maps = [resample(read_labels(row.path("source_labels")), images[0].grid, mode="label").tensor for row in rows]
    truth = torch.cat(maps).long().apply_(lambda label: places.get(label, 0))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(0, len(shown), (batch,), generator=generator)
        loss = _loss(net, *_varied(shown[chosen], truth[chosen], len(places), generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as temporary:
        torch.save(net.state_dict(), temporary)
    return net.eval()


def distances(reference: torch.Tensor, found: torch.Tensor, seed: int = 0) -> dict[str, float]:
    """Frechet and kernel distance of two sets of features (N, F), two or more images in each."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    as_they_are = nn.Identity()
    as_they_are.num_features = reference.shape[1]  # type: ignore[assignment]
    frechet = FrechetInceptionDistance(feature=as_they_are)
    # Every subset is the whole of the smaller set, so that few are needed.
    kernel = KernelInceptionDistance(feature=as_they_are, subsets=20, subset_size=min(len(reference), len(found)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for metric in (frechet, kernel):
            metric.update(reference, real=True)
            metric.update(found, real=False)
        return {"frechet": float(frechet.compute()), "kernel": float(kernel.compute()[0])}


def _scaled(volume: Volume) -> torch.Tensor:
    return Intensity.of(volume).normalise(volume.tensor)


def _varied(
    images: torch.Tensor, labels: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch moved, with another contrast and noise; labels (B, count, *spatial) as shares."""
    motion = Perturbation().draw(len(images), images.shape[2:], generator)
    one_hot = F.one_hot(labels[:, 0], count).movedim(-1, 1).float()

    def draw(low: float, high: float) -> torch.Tensor:
        size = (len(images), *[1] * (images.ndim - 1))
        return low + (high - low) * torch.rand(size, generator=generator)

    shown = 2 * ((warp(images, motion) + 1) / 2).clamp(0, 1) ** draw(0.8, 1.25) - 1
    noise = draw(0.0, 0.05) * torch.randn(images.shape, generator=generator)
    return shown + noise, warp(one_hot, motion)


def _loss(net: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    scores = net(images)
    cross = -(shares * F.log_softmax(scores, dim=1)).sum(dim=1).mean()
    found, axes = scores.softmax(dim=1), (0, *range(2, images.ndim))
    dice = 2 * (found * shares).sum(dim=axes) / (found.sum(dim=axes) + shares.sum(dim=axes)).clamp_min(1.0)
    return cross + (1 - dice).mean()
