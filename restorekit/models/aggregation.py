"""What KBNet's ablation puts in the place of kernel basis attention.

KBNet (Zhang et al., 2023), Section 4.5, Table 7. The paper describes no replacement in detail. Its
multiplications fit a lightweight KBNet_s of width 32 with ffn_scale 1.5 from which the convolutions
of the attention's values are gone too, so each replacement acts on the normalised features. The
residual form is that of the published attention, with one learned scale a channel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.models.blocks import START_SCALE, Coefficients
from restorekit.models.pooling import PooledStatistic, channel_means

KERNEL_BASIS = ("kba", "kba-softmax")
AGGREGATIONS = (*KERNEL_BASIS, "dynamic", "kernel-prediction", "window")
WINDOW = 8


class SoftmaxCoefficients(Coefficients):
    """Predict weights of the kernel bases that sum to 1 at every pixel."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, N, H, W) coefficients of (B, C, H, W) features."""
        return super().forward(features).softmax(1)


class Aggregation(nn.Module):
    """Add what an operator gathers from the neighbours of each pixel, scaled, to the features."""

    def __init__(self, channels: int) -> None:
        """Start with little of it."""
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), START_SCALE))

    def gather(self, features: Tensor) -> Tensor:
        """Return the (B, C, H, W) weighted sums over neighbours of (B, C, H, W) features."""
        raise NotImplementedError

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of gather beside those of its layers."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Return features + scale * gather(features)."""
        return features + self.scale.view(-1, 1, 1) * self.gather(features)


class DynamicConv(Aggregation):
    """Convolve each picture with its own mixture of N grouped 3x3 kernels.

    Dynamic convolution (Chen et al., 2020), Section 3: the mixture follows from the global mean by
    two layers and a softmax. KBNet's paper states neither groups nor temperature: groups of 4 as
    its kernel bases have, and no temperature.
    """

    def __init__(self, channels: int, count: int) -> None:
        """Draw count kernels, uniform within 1/sqrt of the fan-in."""
        super().__init__(channels)
        bound = (4 * 9) ** -0.5
        self.bases = nn.Parameter(torch.empty(count, channels, 4, 3, 3).uniform_(-bound, bound))
        self.biases = nn.Parameter(torch.zeros(count, channels))
        self.pool = PooledStatistic()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.mix = nn.Conv2d(channels // 4, count, 1)

    def coefficients(self, features: Tensor) -> Tensor:
        """Return the (B, N) weights of the kernels, which sum to 1 in each picture."""
        mean = self.pool(channel_means, features)
        weights: Tensor = self.mix(self.squeeze(mean).relu()).softmax(1)
        return weights.flatten(1).expand(len(features), -1)

    def gather(self, features: Tensor) -> Tensor:
        """Return features convolved with the kernel of their picture."""
        coefficients = self.coefficients(features)
        kernels = torch.einsum("bn,ncgyx->bcgyx", coefficients, self.bases).flatten(0, 1)
        biases = (coefficients @ self.biases).flatten()
        pictures = features.reshape(1, -1, *features.shape[2:])
        convolved = F.conv2d(pictures, kernels, biases, padding=1, groups=len(kernels) // 4)
        return convolved.view_as(features)

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of mixing the kernels and of applying them."""
        return self.bases.numel() * len(features) + features.numel() * 4 * 9


class KernelPrediction(Aggregation):
    """Sum the 3x3 neighbours of each value by kernels that are predicted for it.

    Kernel prediction networks (Mildenhall et al., 2018), with one depthwise kernel a pixel and no
    normalisation. A 3x3 and a 1x1 convolution predict it, which have the paper's multiplications.
    """

    def __init__(self, channels: int) -> None:
        """Predict 9 weights for every channel."""
        super().__init__(channels)
        self.kernels = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 9 * channels, 1)
        )

    def gather(self, features: Tensor) -> Tensor:
        """Return the sums; kernel k of channel c is the prediction's channel 9 * c + k."""
        batch, channels, height, width = features.shape
        patches = F.unfold(features, 3, padding=1).view(batch, channels, 9, height, width)
        kernels: Tensor = self.kernels(features).view_as(patches)
        return (kernels * patches).sum(2)

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of applying the kernels."""
        return features.numel() * 9


class WindowAttention(Aggregation):
    """Attend between the pixels of an 8x8 window, with a learned bias for every offset.

    Swin Transformer (Liu et al., 2021), Section 3.2; SwinIR (Liang et al., 2021). Shifted windows
    begin half a window outside the picture, and what lies outside is never attended to, which is
    the masked cyclic shift without the shift. Heads have 32 channels where these divide.
    """

    offsets: Tensor

    def __init__(self, channels: int, shifted: bool) -> None:
        """Build query, key, value and output projections; shift the windows by half or not."""
        super().__init__(channels)
        self.size = math.gcd(channels, 32)
        self.shift = WINDOW // 2 if shifted else 0
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        span = 2 * WINDOW - 1
        self.biases = nn.Parameter(torch.zeros(channels // self.size, span**2))
        place = torch.arange(WINDOW**2)
        row, column = place // WINDOW, place % WINDOW
        offsets = (row[:, None] - row) * span + column[:, None] - column + span**2 // 2
        self.register_buffer("offsets", offsets, persistent=False)

    def gather(self, features: Tensor) -> Tensor:
        """Return the projected mixtures of the values of each window."""
        height, width = features.shape[2:]
        border = self._border(height, width)
        windows = _windows(F.pad(self.qkv(features), border))
        parts = windows.reshape(*windows.shape[:4], 3, -1, self.size)
        query, key, value = parts.permute(4, 0, 1, 2, 5, 3, 6).unbind()  # (B, R, S, head, 64, size)
        outside = _windows(F.pad(torch.zeros_like(features[:1, :1]), border, value=1)).bool()
        weights = query @ key.transpose(-2, -1) * self.size**-0.5 + self.biases[:, self.offsets]
        weights = weights.masked_fill(outside.transpose(3, 4).unsqueeze(3), -math.inf).softmax(-1)
        mixed = _pixels((weights.to(value.dtype) @ value).transpose(3, 4).flatten(4))
        inside = mixed[..., self.shift : self.shift + height, self.shift : self.shift + width]
        projected: Tensor = self.project(inside)
        return projected

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of the two attention products."""
        batch, channels, height, width = features.shape
        left, right, top, bottom = self._border(height, width)
        pixels = (height + top + bottom) * (width + left + right)
        return 2 * batch * channels * pixels * WINDOW**2

    def _border(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return how far the windows reach beyond the left, right, top and bottom."""
        right, bottom = (-(side + self.shift) % WINDOW for side in (width, height))
        return self.shift, right, self.shift, bottom


def replacement(name: str, channels: int, bases: int, shifted: bool) -> Aggregation:
    """Build what takes the place of kernel basis attention, values and all.

    Args:
        name: one of AGGREGATIONS that is not in KERNEL_BASIS.
        channels: of the features.
        bases: kernels of the dynamic convolution.
        shifted: whether the windows of the attention are shifted by half a window.
    """
    if name == "dynamic":
        return DynamicConv(channels, bases)
    if name == "kernel-prediction":
        return KernelPrediction(channels)
    return WindowAttention(channels, shifted)


def _windows(features: Tensor) -> Tensor:
    """Return (B, C, 8 * R, 8 * S) features as (B, R, S, 64, C) windows."""
    batch, channels, height, width = features.shape
    cells = features.reshape(batch, channels, height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def _pixels(windows: Tensor) -> Tensor:
    """Return (B, R, S, 64, C) windows as (B, C, 8 * R, 8 * S) features."""
    cells = windows.reshape(*windows.shape[:3], WINDOW, WINDOW, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
