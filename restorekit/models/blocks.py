"""The parts of KBNet's blocks: norm, branches, kernel bases and their coefficients.

KBNet (Zhang et al., 2023), Section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.models.pooling import PooledStatistic, channel_means
from restorekit.ops.kernel_basis import kernel_basis_attention
from restorekit.tiling import Box, cut

START_SCALE = 1e-2


class LayerNorm(nn.Module):
    """Normalise every pixel over its channels, eps 1e-6."""

    def __init__(self, channels: int) -> None:
        """Start as the plain normalisation."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features of zero mean and unit variance over C."""
        pixels = features.permute(0, 2, 3, 1)
        normal = F.layer_norm(pixels, pixels.shape[-1:], self.weight, self.bias, 1e-6)
        return normal.permute(0, 3, 1, 2)


class ScaledConv(nn.Conv2d):
    """Convolve, and scale every output channel by a learned factor."""

    bias: nn.Parameter

    def forward(self, input: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return scale * conv(input); the scale (C) is folded into the weights."""
        factor = torch.ones_like(self.weight[:, 0, 0, 0]) if scale is None else scale
        return F.conv2d(input, *self.scaled(factor))

    def scaled(self, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias times a factor (C)."""
        return self.weight * factor.view(-1, 1, 1, 1), self.bias * factor


class KernelBasis(nn.Module):
    """Hold N grouped 3x3 kernels and apply them by per-pixel coefficients."""

    def __init__(self, channels: int, count: int, group: int) -> None:
        """Draw the bases as the published code does, uniform within 1/sqrt of the fan-in."""
        super().__init__()
        bound = (group * 9) ** -0.5
        self.bases = nn.Parameter(torch.empty(count, channels, group, 3, 3).uniform_(-bound, bound))
        self.biases = nn.Parameter(torch.zeros(count, channels))
        self.scale = nn.Parameter(torch.full((channels,), START_SCALE))

    def forward(self, values: Tensor, coefficients: Tensor) -> Tensor:
        """Return scale * KBA(values) + values.

        Args:
            values: (B, C, H, W).
            coefficients: (B, N, H, W).
        """
        scale = self.scale.view(1, -1)
        mixed = kernel_basis_attention(
            values, coefficients, self.bases * scale[..., None, None, None], self.biases * scale
        )
        return mixed + values

    def extra_macs(self, values: Tensor, coefficients: Tensor) -> int:
        """Return the multiplications of fusing, applying and biasing, as the paper orders them."""
        pixels = values.shape[0] * values.shape[2] * values.shape[3]
        count, channels, group = self.bases.shape[:3]
        return int(pixels * channels * (count * group * 9 + group * 9 + count))


class Coefficients(nn.Module):
    """Predict the weight of every kernel basis at every pixel."""

    def __init__(self, channels: int, count: int, hidden: int) -> None:
        """Join a gated 3x3 branch and a 1x1 branch."""
        super().__init__()
        self.spatial = nn.Conv2d(channels, hidden, 3, padding=1, groups=hidden)
        self.mix = ScaledConv(hidden // 2, count, 1)
        self.point = nn.Conv2d(channels, count, 1)
        self.scale = nn.Parameter(torch.full((count,), START_SCALE))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, N, H, W) coefficients of (B, C, H, W) features."""
        spatial: Tensor = self.mix(simple_gate(self.spatial(features)), self.scale)
        point: Tensor = self.point(features)
        return spatial + point


class ChannelAttention(nn.Module):
    """Weigh channels by a 1x1 convolution of their global means."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """Map the means of channels to out_channels weights."""
        super().__init__()
        self.pool = PooledStatistic()
        self.mix = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, out_channels, 1, 1) weights."""
        weights: Tensor = self.mix(self.pool(channel_means, features))
        return weights


def simple_gate(features: Tensor) -> Tensor:
    """Return the product of the two halves of the channels."""
    first, second = features.chunk(2, 1)
    return first * second


def pad(picture: Tensor, multiple: int) -> Tensor:
    """Extend the right and the bottom of a (B, C, H, W) picture to multiples by zeros."""
    height, width = picture.shape[2:]
    return F.pad(picture, (0, -width % multiple, 0, -height % multiple))


def pad_mirrored(picture: Tensor, multiple: int) -> Tensor:
    """Extend the right and the bottom of a (B, C, H, W) picture to multiples by its mirror image.

    Repeated edges would turn noise into streaks, which a network takes for the picture.
    """
    batch, channels, height, width = picture.shape
    box = Box(0, 0, height + -height % multiple, width + -width % multiple)
    mirrored = cut(picture.flatten(0, 1), box)
    return mirrored.view(batch, channels, box.height, box.width)


def with_noise_map(degraded: Tensor, noise_std: Tensor | None) -> Tensor:
    """Return (B, C + 1, H, W): a picture and, as its last plane, the deviation of its noise.

    Raises:
        ValueError: there is no deviation.
    """
    if noise_std is None:
        raise ValueError("this network needs the noise deviation of its input")
    return torch.cat((degraded, noise_std.expand_as(degraded[:, :1])), 1)
