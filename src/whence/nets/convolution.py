"""Convolutions of one small volume on a CPU, which torch gives to its slow way."""

from __future__ import annotations

import torch
from torch import nn


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` that takes oneDNN's convolution for one volume too, whatever its size.

    For a batch of one torch takes it only where channels times the first two sides exceed 20480, a rule made for
    images; below, its own convolution needs up to fifteen times as long. The result is the same up to rounding.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self._passed_over(input):
            return super().forward(input)
        padding, stride, dilation = (list(part) for part in (self.padding, self.stride, self.dilation))
        return torch.mkldnn_convolution(input, self.weight, self.bias, padding, stride, dilation, self.groups)

    def _passed_over(self, image: torch.Tensor) -> bool:
        return (
            image.ndim == 5
            and len(image) == 1
            and image.device.type == "cpu"
            and image.dtype == self.weight.dtype == torch.float32
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and torch.backends.mkldnn.is_available()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


def for_one_volume(module: nn.Module) -> nn.Module:
    """The module with every ``nn.Conv3d`` in it turned into ours, weights and all."""
    for part in module.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = Conv3d
    return module
