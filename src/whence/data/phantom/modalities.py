"""How the tissues of a head look in T1, T2 and CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whence.data.phantom.noise import smooth_noise

# Order of the tissue shares: what labels call them, and 0 for air.
AIR, VENTRICLES, GREY, WHITE, DEEP, CSF, SKULL, SCALP = range(8)
LABEL_NAMES = {
    VENTRICLES: "ventricles",
    GREY: "cortical grey matter",
    WHITE: "white matter",
    DEEP: "deep grey matter",
    CSF: "outer CSF",
    SKULL: "skull",
    SCALP: "scalp",
}


@dataclass(frozen=True)
class Modality:
    """Intensity of each tissue (in the order of the shares, then marrow) and the scanner's traits.

    ``spread`` is how much a tissue's intensity varies from scan to scan, ``texture`` its variation within
    the tissue, ``bias`` the deviation of the log bias field, ``noise`` that of the noise, ``magnitude``
    whether the noise is that of a magnitude image.
    """

    tissues: tuple[float, ...]
    marrow: float
    spread: float
    texture: float
    bias: float
    noise: float
    magnitude: bool
    window: tuple[float, float] | None = None


# MR relative to the brightest brain tissue; CT as a brain window of -20 to 100 HU shows it, 0 to 1.
MODALITIES = {
    "t1": Modality((0.0, 0.20, 0.62, 0.95, 0.75, 0.20, 0.07, 1.02), 0.45, 0.03, 0.03, 0.06, 0.020, True),
    "t2": Modality((0.0, 1.00, 0.58, 0.36, 0.44, 0.95, 0.05, 0.50), 0.25, 0.03, 0.03, 0.07, 0.022, True),
    "ct": Modality((0.0, 0.22, 0.48, 0.40, 0.50, 0.23, 1.60, 0.35), 1.25, 0.01, 0.02, 0.0, 0.035, False, (0.0, 1.0)),
}


def image_of(
    modality: Modality,
    rng: np.random.Generator,
    shares: np.ndarray,
    marrow: np.ndarray,
    grain: np.ndarray,
    spacing: float,
) -> np.ndarray:
    """A scan (*shape), float32, of tissue shares (8, *shape).

    ``marrow`` (*shape) is the marrow's share of the skull, ``grain`` (*shape) a texture that the anatomy
    carries; mm a voxel in ``spacing``.
    """
    values = np.asarray(modality.tissues) * (1 + modality.spread * rng.standard_normal(len(modality.tissues)))
    clean = np.tensordot(values, shares, axes=1)
    clean += shares[SKULL] * marrow * (modality.marrow - values[SKULL])
    own = smooth_noise(rng, clean.shape, max(0.8, 2.5 / spacing))[0]
    clean *= 1 + modality.texture * (0.8 * grain + 0.5 * own)
    clean *= np.exp(modality.bias * smooth_noise(rng, clean.shape, 60.0 / spacing)[0])
    real, imaginary = rng.standard_normal((2, *clean.shape), dtype=np.float32) * modality.noise
    scan = np.sqrt((clean + real) ** 2 + imaginary**2) if modality.magnitude else clean + real
    if modality.window is not None:
        return np.clip(scan, *modality.window).astype(np.float32)
    return (scan * np.exp(rng.uniform(np.log(300), np.log(1500)))).astype(np.float32)
