"""Structure maps: what of an image says where things are, whatever their intensities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

import torch
from torch.nn import functional as F

from whence import kernels
from whence.errors import InputError

StructureMap = Callable[[torch.Tensor], torch.Tensor]


def edges(image: torch.Tensor, widths: tuple[tuple[float, float], ...] = ((1.0, 4.0), (2.5, 6.0))) -> torch.Tensor:
    """Edge strength (B, len(widths), *spatial) in 0..1 of images (B, C, *spatial) in [-1, 1], one channel a width.

    m / (m + q) with m the strongest response of the channels and directions to the derivative of a Gaussian, across an
    edge as wide as the first number of a width and along it as the second, in voxels (steered in the Fourier domain),
    and q twice its mean over the image: a weak edge counts nearly as much as a strong one, whatever its sign. What is
    long along an edge sees a border in speckle that an isotropic gradient loses (Freeman & Adelson 1991).
    """
    # An axis of one voxel has no edges across it; half precision would not do for the transforms.
    flat = image.float().reshape(*image.shape[:2], *[n for n in image.shape[2:] if n > 1] or [1])
    with torch.autocast(image.device.type, enabled=False):
        found = torch.cat([_strength(strongest) for strongest in _responses(flat, widths)], dim=1)
    return found.reshape(len(image), len(widths), *image.shape[2:])


def self_similarity(image: torch.Tensor, width: float = 2.0) -> torch.Tensor:
    """Mean and deviation (B, 2, *spatial), 0..1, of the entries of MIND-SSC at each voxel of images (B, C, *spatial).

    Not the entries themselves: those belong to directions of the lattice, and would be wrong once they are carried
    along a field that turns.
    """
    smooth = kernels.gaussian(image.mean(dim=1, keepdim=True), width)
    entries = kernels.mind_descriptor(smooth, 1, 2)
    mean = entries.mean(dim=1, keepdim=True)
    # An entry lies between 0 and 1, so that its deviation is at most a half.
    return torch.cat([mean, 2 * (entries - mean).square().mean(dim=1, keepdim=True).sqrt()], dim=1)


# Name: function, number of channels.
STRUCTURES: dict[str, tuple[StructureMap, int]] = {
    "edges": (edges, 2),
    "mind": (self_similarity, 2),
}
LABELS, LABEL_CHANNELS = "labels", 8


def label_maps(labels: torch.Tensor) -> torch.Tensor:
    """Borders and labels (B, 9, *spatial), 0 or 1, of labels (B, 1, *spatial), whole numbers of any type.

    The first channel is 1 where a neighbour has another label. The others are 1 where a label is: label n in channel
    1 + (n - 1) mod 8, so that as many labels as there are channels have one each, and more share them. Background is in
    none. Codes that are denser take a network several times as long to tell apart.
    """
    shown = labels.float()
    pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[labels.ndim]
    most, least = pool(shown, 3, 1, 1), -pool(-shown, 3, 1, 1)
    places = torch.arange(LABEL_CHANNELS, device=labels.device).reshape(1, -1, *[1] * (labels.ndim - 2))
    taken = (torch.remainder(labels.long() - 1, LABEL_CHANNELS) == places) & (labels != 0)
    return torch.cat([most != least, taken], dim=1).float()


class Structure:
    """The structure maps of a name: ``image`` functions of what is seen, and those of labels where it asks for them.

    Names are those of ``STRUCTURES`` and ``labels``, joined by ``+`` (edges+labels), or ``module:function``: any
    function, of a module that Python finds, of images (B, C, *spatial) in [-1, 1] that returns maps (B, K, *spatial) in
    0..1 that turn with a flip along the first axis. Raises InputError for an unknown name or a function that returns
    something else.
    """

    def __init__(self, name: str, dims: int, channels: int = 1) -> None:
        self.labelled = False
        self.functions: list[StructureMap] = []
        self.of_image = 0
        for part in [name] if ":" in name else name.split("+"):
            if part == LABELS:
                self.labelled = True
                continue
            function, count = _external(part, dims, channels) if ":" in part else _named(part)
            self.functions.append(function)
            self.of_image += count
        self.channels = self.of_image + (1 + LABEL_CHANNELS if self.labelled else 0)

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """The maps (B, of_image, *spatial) that an image shows without its labels."""
        found = [function(image) for function in self.functions]
        return torch.cat(found, dim=1) if found else image[:, :0]

    def __call__(self, image: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """All maps (B, channels, *spatial) of an image and, where the name asks for them, its labels."""
        if not self.labelled:
            return self.image(image)
        if labels is None:
            raise ValueError("these structure maps are also of labels; got none")
        return torch.cat([self.image(image), label_maps(labels)], dim=1)


def sees_labels(name: str) -> bool:
    """Whether the structure of a name is also of labels."""
    return ":" not in name and LABELS in name.split("+")


def _named(name: str) -> tuple[StructureMap, int]:
    if name not in STRUCTURES:
        known = ", ".join([*STRUCTURES, LABELS])
        raise InputError(f"unknown structure {name!r}; expected some of {known}, joined by +, or module:function")
    return STRUCTURES[name]


def _external(name: str, dims: int, channels: int) -> tuple[StructureMap, int]:
    """A function by its name, and how many channels it gives."""
    module, _, function = name.partition(":")
    probe = torch.rand((1, channels, *[16] * dims), generator=torch.Generator().manual_seed(0))
    try:
        found: StructureMap = getattr(import_module(module), function)
        maps = found(2 * probe - 1)
    except Exception as error:  # whatever a stranger's module raises
        raise InputError(f"structure {name!r} cannot be had: {type(error).__name__}: {error}") from error
    fits = isinstance(maps, torch.Tensor) and maps.is_floating_point() and maps.ndim == probe.ndim
    if not fits or maps.shape[2:] != probe.shape[2:] or len(maps) != 1:
        got = f"{tuple(maps.shape)} of {maps.dtype}" if isinstance(maps, torch.Tensor) else type(maps).__name__
        raise InputError(
            f"structure {name!r} returns {got} for images of {tuple(probe.shape)}; expected floats (1, K, *spatial)"
        )
    return found, maps.shape[1]


def _strength(response: torch.Tensor) -> torch.Tensor:
    typical = 2 * response.mean(dim=tuple(range(1, response.ndim)), keepdim=True)
    return response / (response + typical.clamp_min(1e-4))


def _responses(image: torch.Tensor, widths: Sequence[tuple[float, float]]) -> Iterator[torch.Tensor]:
    """The strongest response (B, 1, *spatial) of channels and directions at each width."""
    # Far enough for opposite borders hardly to see each other.
    margin = math.ceil(2 * max(along for _, along in widths))
    pads = [pad for n in reversed(image.shape[2:]) for pad in (margin, _length(n + 2 * margin) - n - margin)]
    padded = F.pad(image, pads, mode="replicate")
    axes = tuple(range(2, image.ndim))
    spectrum, frequency = torch.fft.rfftn(padded, dim=axes), _frequencies(padded)
    length = frequency.square().sum(dim=0)
    inside = (..., *[slice(margin, margin + n) for n in image.shape[2:]])
    for across, along in widths:
        strongest = torch.zeros_like(image[:, :1])
        for direction in _directions(image.ndim - 2).tolist():
            through = torch.stack([part * axis for part, axis in zip(direction, frequency, strict=True)]).sum(dim=0)
            rest = (length - through.square()).clamp_min(0)
            filtered = 1j * through * torch.exp(-(across**2 * through.square() + along**2 * rest) / 2)
            response = torch.fft.irfftn(spectrum * filtered, s=padded.shape[2:], dim=axes)[inside].abs()
            strongest = torch.maximum(strongest, response.amax(dim=1, keepdim=True))
        yield strongest


def _length(least: int) -> int:
    """A length from ``least`` up that transforms fast and is odd, so that a flip only mirrors the spectrum."""
    while True:
        rest = least
        for factor in (3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return least
        least += 1


def _frequencies(image: torch.Tensor) -> torch.Tensor:
    """Angular frequencies (D, *half spectrum) of the real Fourier transform of images (B, C, *spatial), per voxel."""
    full = [torch.fft.fftfreq(n, device=image.device) for n in image.shape[2:-1]]
    last = torch.fft.rfftfreq(image.shape[-1], device=image.device)
    return 2 * math.pi * torch.stack(torch.meshgrid(*full, last, indexing="ij"))


def _directions(dims: int) -> torch.Tensor:
    """Unit vectors (N, D), one of each opposite pair: on a line one, over the half circle 8, over the half sphere 25.

    In 3D those to a voxel's neighbours and halfway between them, so that a flipped image has the same ones.
    """
    if dims == 1:
        return torch.ones(1, 1)
    if dims == 2:
        angles = math.pi * torch.arange(8) / 8
        return torch.stack([angles.cos(), angles.sin()], dim=1)
    steps = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)
    lengths = [sorted(step.abs().tolist()) for step in steps]
    kept = [found in ([0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 2]) for found in lengths]
    ordered = steps[torch.tensor(kept)]
    # One of each opposite pair: the one whose last coordinate beside zeros is positive.
    signs = (ordered @ torch.tensor([0.01, 0.1, 1.0])).sign()
    return F.normalize(ordered[signs > 0], dim=1)
