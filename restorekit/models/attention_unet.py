"""A U-Net whose decoder attends: what AME-KPN extracts features with.

AME-KPN (Zhang et al., ICASSP 2020), Sections 2.1 and 2.2; CBAM (Woo et al., ECCV 2018).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.models.pooling import PooledStatistic, channel_means

REDUCTION = 4
SPATIAL_KERNEL = 7
START_GATE = 2.0
"""Logit of fresh attention."""


class ChannelGate(nn.Module):
    """Weigh channels by their global means and maxima (CBAM, Woo et al., 2018)."""

    def __init__(self, channels: int) -> None:
        """Build the two layers that both statistics pass."""
        super().__init__()
        hidden = max(channels // REDUCTION, 8)
        self.mean, self.maximum = PooledStatistic(), PooledStatistic()
        self.squeeze = fresh_convolution(channels, hidden, 1)
        self.mix = fresh_convolution(hidden, channels, 1, START_GATE)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighed (B, C, H, W) features."""
        mean = self.mean(channel_means, features)
        maximum = self.maximum(_channel_maxima, features)
        logits = self.mix(self.squeeze(mean).relu() + self.squeeze(maximum).relu())
        weighed: Tensor = features * logits.sigmoid()
        return weighed


def _channel_maxima(features: Tensor) -> Tensor:
    return features.amax((2, 3), keepdim=True)


class SpatialGate(nn.Module):
    """Weigh pixels by the mean and the maximum of their channels (CBAM)."""

    def __init__(self) -> None:
        """Build the one convolution."""
        super().__init__()
        self.mix = fresh_convolution(2, 1, SPATIAL_KERNEL, START_GATE)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighed (B, C, H, W) features."""
        pooled = torch.cat((features.mean(1, keepdim=True), features.amax(1, keepdim=True)), 1)
        weights: Tensor = self.mix(pooled)
        return features * weights.sigmoid()


class UNet(nn.Module):
    """Extract features at the size of the input, with attention in the decoder."""

    def __init__(
        self,
        planes: int,
        widths: tuple[int, ...],
        convolutions: int,
        *,
        channel_attention: bool,
        spatial_attention: bool,
    ) -> None:
        """Build levels of convolutions, averaged on the way down and interpolated on the way up.

        Args:
            planes: channels of the input.
            widths: channels of each level, the first at the size of the input.
            convolutions: of 3x3 pixels, each level.
            channel_attention: whether a ChannelGate ends each level of the decoder.
            spatial_attention: whether a SpatialGate does.
        """
        super().__init__()

        def attended(channels: int, width: int) -> nn.Sequential:
            layers = _convolutions(channels, width, convolutions)
            layers += [ChannelGate(width)] if channel_attention else []
            layers += [SpatialGate()] if spatial_attention else []
            return nn.Sequential(*layers)

        self.encoders = nn.ModuleList(
            nn.Sequential(*_convolutions(channels, width, convolutions))
            for channels, width in zip((planes, *widths), widths, strict=False)
        )
        self.decoders = nn.ModuleList(
            attended(width + below, width)
            for width, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Return (B, widths[0], H, W) features; sides are multiples of 2 ** (levels - 1)."""
        skips = [self.encoders[0](planes)]
        for encoder in list(self.encoders)[1:]:
            skips.append(encoder(F.avg_pool2d(skips[-1], 2)))
        features: Tensor = skips.pop()
        for decoder in self.decoders:
            wide = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = decoder(torch.cat((skips.pop(), wide), 1))
        return features


def with_more_convolutions(
    weights: Mapping[str, Tensor], prefix: str, convolutions: int
) -> dict[str, Tensor]:
    """Return the weights of a UNet as one with more convolutions a level begins with them.

    New ones follow those that are there, and give back the rectified features that they see.

    Args:
        weights: by name.
        prefix: of the names of the UNet's weights.
        convolutions: of each level; with no more than there are, nothing changes.
    """
    layer = re.compile(re.escape(prefix) + r"((?:en|de)coders\.\d+)\.(\d+)\.(.+)")
    found = {name: match for name in weights if (match := layer.fullmatch(name))}
    known = sum(match[1] == "encoders.0" and match[3] == "bias" for match in found.values())
    new = range(known, max(known, convolutions))
    stretched = {name: value for name, value in weights.items() if name not in found}
    for name, match in found.items():
        number = int(match[2])
        later = 2 * len(new) * (number >= 2 * known)
        stretched[f"{prefix}{match[1]}.{number + later}.{match[3]}"] = weights[name]
        if number == 2 * (known - 1) and match[3] == "bias":
            for convolution in new:
                start = f"{prefix}{match[1]}.{2 * convolution}"
                identity = weights[name].new_zeros(2 * weights[name].shape + (3, 3))
                stretched[f"{start}.weight"] = nn.init.dirac_(identity)
                stretched[f"{start}.bias"] = torch.zeros_like(weights[name])
    return stretched


def fresh_convolution(channels: int, width: int, side: int, start: float = 0.0) -> nn.Conv2d:
    """Build a convolution that keeps the variance of rectified features, with this bias."""
    layer = nn.Conv2d(channels, width, side, padding=side // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    layer.bias = nn.Parameter(torch.full((width,), start))
    return layer


def _convolutions(channels: int, width: int, count: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [fresh_convolution(width if number else channels, width, 3), nn.ReLU(True)]
    return layers
