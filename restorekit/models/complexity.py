"""Count parameters and multiplications of a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from restorekit.models.registry import NoiseInput, RestorationModel, count_parameters


@runtime_checkable
class AttentionOperator(Protocol):
    """Be a module whose products no layer accounts for."""

    def extra_macs(self, *inputs: Any) -> int:
        """Return the multiply-accumulates of these inputs beside those of its layers."""


@dataclass(frozen=True)
class Complexity:
    """Hold the size of a network.

    Attributes:
        parameters: trainable numbers.
        macs_layers: multiply-accumulates of convolutions and linear layers, as papers count them.
        macs: those, and the products inside attention operators.
    """

    parameters: int
    macs_layers: int
    macs: int


def count_macs(model: RestorationModel, height: int = 256, width: int = 256) -> Complexity:
    """Count what one picture of height x width costs; runs the network on the meta device."""
    layers = extra = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal layers, extra
        if isinstance(module, nn.Conv2d):
            pixels = output.shape[0] * output.shape[2] * output.shape[3]
            layers += pixels * module.weight.numel()
        elif isinstance(module, nn.Linear):
            layers += output.numel() // module.out_features * module.weight.numel()
        elif isinstance(module, AttentionOperator):
            extra += module.extra_macs(*inputs)

    shell = copy.deepcopy(model).to("meta")
    for module in shell.modules():
        module.register_forward_hook(count)
    picture = torch.zeros(1, model.spec.in_channels, height, width, device="meta")
    noise = torch.zeros(1, 1, height, width, device="meta")
    with torch.no_grad():
        shell(picture, noise if model.spec.noise_input is NoiseInput.STD_MAP else None)
    return Complexity(count_parameters(model), layers, layers + extra)
