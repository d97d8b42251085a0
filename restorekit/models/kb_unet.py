"""The block of KBNet and the U-shape of its denoisers.

KBNet (Zhang et al., 2023): Section 3.2 for the block, Section 4.1 for the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.aggregation import KERNEL_BASIS, SoftmaxCoefficients, replacement
from restorekit.models.blocks import (
    START_SCALE,
    ChannelAttention,
    Coefficients,
    KernelBasis,
    LayerNorm,
    ScaledConv,
    simple_gate,
)
from restorekit.ops import gated_block


class KBBlock(nn.Module):
    """Fuse depthwise, channel-attention and kernel-basis branches, then a gated feed-forward."""

    def __init__(
        self,
        channels: int,
        bases: int,
        lightweight: bool,
        ffn_scale: float,
        *,
        aggregation: str = "kba",
        branches: str = "dw+ca+kba",
        shifted: bool = False,
    ) -> None:
        """Build the block; without bases the values of kernel basis attention pass unchanged."""
        super().__init__()
        self._depthwise = lightweight
        size, groups = (3, channels) if lightweight else (5, channels // 4)
        self.norm1 = LayerNorm(channels)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, channels, size, padding=size // 2, groups=groups),
        )
        self.attention = ChannelAttention(channels, channels) if "ca" in branches else None
        self.values: nn.Module | None = None
        self.coefficients: Coefficients | None = None
        self.kernels: KernelBasis | None = None
        if "kba" in branches and aggregation in KERNEL_BASIS:
            self.values = nn.Sequential(
                nn.Conv2d(channels, channels, 1),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            )
            if bases:
                predictor = Coefficients if aggregation == "kba" else SoftmaxCoefficients
                self.coefficients = predictor(channels, bases, min(channels, 32))
                self.kernels = KernelBasis(channels, bases, 4)
        elif "kba" in branches:
            self.values = replacement(aggregation, channels, bases, shifted)
        self.project = ScaledConv(channels, channels, 1)
        self.beta = nn.Parameter(torch.full((channels,), START_SCALE))
        self.norm2 = LayerNorm(channels)
        hidden = int(channels * ffn_scale)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.reduce = ScaledConv(hidden // 2, channels, 1)
        self.gamma = nn.Parameter(torch.full((channels,), START_SCALE))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        if not gated_block.runs_compiled(features, self.reduce.in_channels):
            return self._fed_forward(self._fused(features))
        return gated_block.feed_forward(
            self._fused_compiled(features),
            _layer(self.norm2),
            _layer(self.expand),
            self.reduce.scaled(self.gamma),
        )

    def _fused_compiled(self, features: Tensor) -> Tensor:
        """Return the same as _fused, by a kernel if it has two depthwise branches and attention."""
        plain = self._depthwise and self.kernels is None
        if not plain or self.attention is None or not isinstance(self.values, nn.Sequential):
            return self._fused(features)
        seen = features if self.attention.pool.fixed else self.norm1(features)
        points, depthwise = zip(self.values, self.spatial, strict=True)
        return gated_block.branches(
            features,
            _layer(self.norm1),
            _layer(*points),
            _layer(*depthwise),
            self.attention(seen),
            self.project.scaled(self.beta),
        )

    def _fused(self, features: Tensor) -> Tensor:
        normal = self.norm1(features)
        values = None if self.values is None else self.values(normal)
        if self.kernels is not None and self.coefficients is not None:
            values = self.kernels(values, self.coefficients(normal))
        fused = self.spatial(normal) if values is None else values * self.spatial(normal)
        if self.attention is not None:
            fused = fused * self.attention(normal)
        projected: Tensor = self.project(fused, self.beta)
        return features + projected

    def _fed_forward(self, fused: Tensor) -> Tensor:
        gated = simple_gate(self.expand(self.norm2(fused)))
        widened: Tensor = self.reduce(gated, self.gamma)
        return fused + widened


def _layer(*modules: nn.Module) -> gated_block.Layer:
    """Return the weights and the biases of layers that lie side by side."""
    weight, bias = (torch.cat([getattr(x, name) for x in modules]) for name in ("weight", "bias"))
    return weight, bias


class GatedUNet(nn.Module):
    """Run stages of KBBlocks in a U-shape with additive skips."""

    def __init__(
        self,
        width: int,
        encoder_blocks: tuple[int, ...],
        middle_blocks: int,
        decoder_blocks: tuple[int, ...],
        stage: Callable[[int, int, int], nn.Sequential],
    ) -> None:
        """Build every stage by stage(level, channels, blocks).

        Raises:
            ConfigError: encoder and decoder differ in their number of levels.
        """
        super().__init__()
        levels = len(encoder_blocks)
        if len(decoder_blocks) != levels:
            raise ConfigError(
                f"encoder_blocks and decoder_blocks must have as many levels, not {levels} and "
                f"{len(decoder_blocks)}"
            )
        widths = [width << level for level in range(levels + 1)]
        self.encoders = nn.ModuleList(
            stage(level, widths[level], blocks) for level, blocks in enumerate(encoder_blocks)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths[:-1])
        self.middle = stage(levels, widths[-1], middle_blocks)
        self.ups = nn.ModuleList(nn.Conv2d(c, 2 * c, 1, bias=False) for c in widths[:0:-1])
        self.decoders = nn.ModuleList(
            stage(levels - 1 - index, widths[levels - 1 - index], blocks)
            for index, blocks in enumerate(decoder_blocks)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.middle(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(F.pixel_shuffle(up(features), 2) + skips.pop())
        return features
