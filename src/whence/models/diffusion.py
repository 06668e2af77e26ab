"""Noise schedules and solvers, as diffusers keeps them."""

from __future__ import annotations

from typing import Any

import torch

from whence.errors import InputError

SOLVERS = ("ddim", "dpm")


def scheduler(solver: str, steps: int, schedule: str = "squaredcos_cap_v2", prediction: str = "epsilon") -> Any:
    """A diffusers scheduler of ``steps`` training steps: ``ddim`` (deterministic) or ``dpm`` (DPM-Solver++ of order 2).

    Raises InputError where diffusers is not installed.
    """
    try:
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
    except ImportError as error:
        raise InputError("diffusion needs diffusers: python -m pip install 'whence[diffusion]'") from error
    common = {"num_train_timesteps": steps, "beta_schedule": schedule, "prediction_type": prediction}
    if solver == "dpm":
        return DPMSolverMultistepScheduler(**common, timestep_spacing="trailing")
    return DDIMScheduler(**common, clip_sample=True, timestep_spacing="trailing", set_alpha_to_one=True)


def clean(scheduler: Any, noisy: torch.Tensor, answer: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The image (B, C, *spatial) that a denoiser's answer says lies under the noise of ``step`` (B,)."""
    kept = scheduler.alphas_cumprod.to(noisy)[step].reshape(-1, *[1] * (noisy.ndim - 1))
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - noise * answer
    return (noisy - noise * answer) / signal.clamp_min(1e-3)


def wanted(scheduler: Any, image: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """What a denoiser is to answer: the noise, or the velocity of v-prediction."""
    if scheduler.config.prediction_type == "v_prediction":
        kept = scheduler.alphas_cumprod.to(image)[step].reshape(-1, *[1] * (image.ndim - 1))
        return kept.sqrt() * noise - (1 - kept).sqrt() * image
    return noise
