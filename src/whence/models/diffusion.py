"""Noise schedules and solvers, as diffusers keeps them."""

from __future__ import annotations

from typing import Any

import torch

from whence.errors import InputError

SOLVERS = ("ddim", "dpm")


def scheduler(
    solver: str,
    steps: int,
    schedule: str = "squaredcos_cap_v2",
    prediction: str = "epsilon",
    clip: bool = True,
    betas: tuple[float, float] = (0.00085, 0.012),
) -> Any:
    """A diffusers scheduler of ``steps`` training steps: ``ddim`` (deterministic) or ``dpm`` (DPM-Solver++ of order 2).

    ``betas`` are the ends of ``scaled_linear``, Stable Diffusion's unless they are named. ``clip`` says that what is
    drawn lies in [-1, 1], as images do and latents do not.
    Raises InputError where diffusers is not installed, ValueError for a schedule whose last noise leaves an image seen.
    """
    try:
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
    except ImportError as error:
        raise InputError("diffusion needs diffusers: python -m pip install 'whence[diffusion]'") from error
    common: dict[str, Any] = {"num_train_timesteps": steps, "beta_schedule": schedule, "prediction_type": prediction}
    common["timestep_spacing"] = "trailing"
    if schedule == "scaled_linear":
        common |= {"beta_start": betas[0], "beta_end": betas[1]}
    if solver == "dpm":
        found = DPMSolverMultistepScheduler(**common)
    else:
        found = DDIMScheduler(**common, clip_sample=clip, set_alpha_to_one=True)
    left = float(found.alphas_cumprod[-1].sqrt())
    if left > 0.1:
        raise ValueError(
            f"{steps} noise steps of {schedule} leave {left:.0%} of an image under the last, where sampling begins "
            "with none of it; expected more steps"
        )
    return found


def wanted(scheduler: Any, image: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """What a denoiser is to answer: the noise, the velocity of v-prediction, or the image itself (sample)."""
    if scheduler.config.prediction_type == "sample":
        return image
    if scheduler.config.prediction_type == "v_prediction":
        kept = scheduler.alphas_cumprod.to(image)[step].reshape(-1, *[1] * (image.ndim - 1))
        return kept.sqrt() * noise - (1 - kept).sqrt() * image
    return noise


def cleaned(scheduler: Any, answer: torch.Tensor, noisy: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The image that a denoiser's ``answer`` (see ``wanted``) to ``noisy`` means."""
    if scheduler.config.prediction_type == "sample":
        return answer
    kept = scheduler.alphas_cumprod.to(noisy)[step].reshape(-1, *[1] * (noisy.ndim - 1))
    if scheduler.config.prediction_type == "v_prediction":
        return kept.sqrt() * noisy - (1 - kept).sqrt() * answer
    return (noisy - (1 - kept).sqrt() * answer) / kept.sqrt()
