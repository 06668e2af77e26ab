"""How tissue looks on one date: contrast, texture, bias field, noise and intensity scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whence.data.phantom.noise import smooth_noise

# T1 of the template where a voxel is purely background, CSF, grey or white matter, or the brightest.
TEMPLATE = (0.0, 0.28, 0.655, 0.87, 1.0)


@dataclass(frozen=True)
class Protocol:
    """One date's scanner and sequence; intensities relative to white matter = 1."""

    csf: float
    grey: float
    white: float
    brightest: float
    enhancement: float
    texture: float
    bias: float
    noise: float
    scale: float


def draw_protocol(rng: np.random.Generator) -> Protocol:
    """A T1-weighted protocol with contrast agent, a little different each time."""
    return Protocol(
        csf=rng.uniform(0.16, 0.26),
        grey=rng.uniform(0.60, 0.70),
        white=rng.uniform(0.95, 1.05),
        brightest=rng.uniform(1.12, 1.22),
        enhancement=rng.uniform(1.25, 1.5),
        texture=rng.uniform(0.02, 0.035),
        bias=rng.uniform(0.03, 0.08),
        noise=rng.uniform(0.012, 0.028),
        scale=float(np.exp(rng.uniform(np.log(300), np.log(1500)))),
    )


def contrast(t1: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Template intensities remapped to a protocol's tissue contrast."""
    nodes = (0.0, protocol.csf, protocol.grey, protocol.white, protocol.brightest)
    return np.interp(t1, TEMPLATE, nodes).astype(np.float32)


def acquire(rng: np.random.Generator, clean: np.ndarray, protocol: Protocol, spacing: float) -> np.ndarray:
    """A scan of noiseless intensities: bias field, Rician noise, scale; background stays near 0."""
    bias = np.exp(protocol.bias * smooth_noise(rng, clean.shape, 45.0 / spacing)[0])
    real, imaginary = rng.standard_normal((2, *clean.shape), dtype=np.float32) * protocol.noise
    magnitude = np.sqrt((clean * bias + real) ** 2 + imaginary**2)
    return (protocol.scale * magnitude).astype(np.float32)
