"""Latent diffusion's networks as diffusers keeps them, from nothing or from a folder of Stable Diffusion's layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whence.errors import InputError


def autoencoder(channels: int, features: Sequence[int], latent: int = 4) -> nn.Module:
    """KL autoencoder of images (B, channels, H, W), half the size a level; latents (B, latent, h, w)."""
    models = _diffusers()
    return models.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(features),
        up_block_types=("UpDecoderBlock2D",) * len(features),
        block_out_channels=tuple(features),
        layers_per_block=1,
        latent_channels=latent,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def denoiser(inputs: int, outputs: int, features: Sequence[int], prompt: int) -> nn.Module:
    """U-Net of latents (B, inputs, h, w) that attends to a prompt (B, tokens, prompt) at its coarsest level.

    What it attends to are few vectors; among its own places attention costs the square of their number.
    """
    models, levels = _diffusers(), len(features)
    return models.UNet2DConditionModel(
        in_channels=inputs,
        out_channels=outputs,
        layers_per_block=1,
        block_out_channels=tuple(features),
        down_block_types=(*["DownBlock2D"] * (levels - 1), "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", *["UpBlock2D"] * (levels - 1)),
        cross_attention_dim=prompt,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def stable_diffusion(name: str) -> tuple[nn.Module, nn.Module | None]:
    """Autoencoder and U-Net of a folder, or a hub's name, of Stable Diffusion's layout (vae/, unet/).

    A folder may hold an autoencoder alone. Raises InputError where the folder lacks it, or a part cannot be loaded.
    """
    models = _diffusers()
    if Path(name).is_dir() and not (Path(name) / "vae" / "config.json").is_file():
        raise InputError(f"{name} holds no vae/config.json; expected a folder of Stable Diffusion's layout")
    vae = _part(models.AutoencoderKL, name, "vae")
    if Path(name).is_dir() and not (Path(name) / "unet").is_dir():
        return vae, None
    return vae, _part(models.UNet2DConditionModel, name, "unet")


def check_schedule(name: str, answer: str, steps: int, noise: str) -> None:
    """Refuse a folder, or hub's name, whose U-Net has learnt another answer or noise than is asked of it.

    ``answer`` is epsilon, v_prediction, or another that no folder has learnt; ``noise`` the schedule of ``steps``. What
    the folder does not say of its scheduler is not compared. Raises InputError.
    """
    try:
        said = _diffusers().DDIMScheduler.load_config(name, subfolder="scheduler")
    except (OSError, ValueError):
        return
    asked: dict[str, Any] = {"num_train_timesteps": steps, "beta_schedule": noise}
    if answer in ("epsilon", "v_prediction"):
        asked["prediction_type"] = answer
    options = {"num_train_timesteps": "noise_steps", "beta_schedule": "noise_schedule", "prediction_type": "answer"}
    for key, wanted in asked.items():
        if said.get(key, wanted) != wanted:
            raise InputError(
                f"the U-Net of {name} was trained with {key} {said[key]}; expected --{options[key]} {said[key]}, "
                f"got {wanted}"
            )


def described(net: Any) -> dict[str, Any]:
    """What a network of diffusers is, in plain values."""
    return json.loads(net.to_json_string())


def rebuilt(vae: dict[str, Any], unet: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Autoencoder and U-Net, with fresh weights, of what ``described`` them."""
    models = _diffusers()
    return models.AutoencoderKL.from_config(vae), models.UNet2DConditionModel.from_config(unet)


def _part(kind: Any, name: str, part: str) -> Any:
    try:
        return kind.from_pretrained(name, subfolder=part, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{part} of {name} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def widened(unet: Any, inputs: int) -> nn.Module:
    """A U-Net that sees further ``inputs``, of weight 0: it answers as before until it has learnt what they mean."""
    if unet.conv_in.in_channels == inputs:
        return unet
    old = unet.conv_in
    if inputs < old.in_channels:
        raise InputError(f"the U-Net sees {old.in_channels} channels; expected at most {inputs}")
    new = nn.Conv2d(inputs, old.out_channels, old.kernel_size, old.stride, old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=inputs)
    return unet


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise InputError("latent diffusion needs diffusers: python -m pip install 'whence[diffusion]'") from error
    return diffusers
