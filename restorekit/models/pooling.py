"""Statistics that a network pools over the whole picture, and that tiles must share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PooledStatistic(nn.Module):
    """Pool features, or give what was measured beforehand in place of that."""

    def __init__(self) -> None:
        """Start by pooling each input."""
        super().__init__()
        self.measuring = False
        self.frozen: Tensor | None = None

    @property
    def fixed(self) -> bool:
        """Return whether the statistic is frozen, and features not looked at."""
        return self.frozen is not None and not self.measuring

    def forward(
        self, statistic: Callable[..., Tensor], features: Tensor, *others: Tensor
    ) -> Tensor:
        """Return the (B, ...) statistic of features, or the frozen (1, ...) one at no cost."""
        if self.fixed and self.frozen is not None:
            return self.frozen.to(features.dtype)
        found = statistic(features, *others)
        if self.measuring:
            self.frozen = found = found.mean(0, keepdim=True)
        return found


def channel_means(features: Tensor) -> Tensor:
    """Return the (B, C, 1, 1) means of (B, C, H, W) features.

    Their gradient has the layout of a convolution's, to which it is added.
    """
    means: Tensor = _ChannelMeans.apply(features)  # type: ignore[no-untyped-call]
    return means


class _ChannelMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.shape = features.shape
        return features.mean((2, 3), keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        spread: Tensor = (gradient / math.prod(ctx.shape[2:])).expand(ctx.shape)
        return spread.contiguous(memory_format=torch.channels_last)
