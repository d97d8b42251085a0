"""KBNet_l: a Restormer-shaped U-Net with kernel basis attention for deraining and deblurring.

KBNet (Zhang et al., 2023), Sections 3.2 and 4.1; transposed attention from Restormer (Zamir et
al., 2022), Section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.models.blocks import ChannelAttention, Coefficients, KernelBasis, LayerNorm, pad
from restorekit.models.pooling import PooledStatistic
from restorekit.models.registry import ModelSpec, RestorationModel, Tiling, register_model


@dataclass(frozen=True)
class KBNetLConfig:
    """Describe KBNet_l; the defaults are the published deraining and deblurring network.

    Attributes:
        channels: planes of the picture.
        width: channels of the first level.
        blocks: blocks of the four levels.
        refinement_blocks: blocks after the last decoder level.
        heads: attention heads of the four levels.
        bases: kernel bases of every block.
        ffn_scale: channels of the feature fusion, relative to its input.
    """

    channels: int = 3
    width: int = 48
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    bases: int = 32
    ffn_scale: float = 1.5


class FeatureFusion(nn.Module):
    """Fuse depthwise, channel-attention and kernel-basis branches at a wider width (MFF)."""

    def __init__(self, channels: int, bases: int, ffn_scale: float) -> None:
        """Build the block; only the channel attention and the coefficients have biases."""
        super().__init__()
        hidden = int(channels * ffn_scale)
        self.spatial = _point_and_depth(channels, hidden)
        self.attention = ChannelAttention(channels, hidden)
        self.values = _point_and_depth(channels, hidden)
        self.coefficients = Coefficients(channels, bases, min(channels, 24))
        self.kernels = KernelBasis(hidden, bases, 2)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        values = self.kernels(self.values(features), self.coefficients(features))
        gate = F.gelu(self.spatial(features))
        fused: Tensor = self.project(gate * values * self.attention(features))
        return fused


class TransposedAttention(nn.Module):
    """Attend between channels: softmax of normalised q k^T over all pixels (Restormer)."""

    def __init__(self, channels: int, heads: int) -> None:
        """Build q, k, v and output projections without bias."""
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _point_and_depth(channels, 3 * channels)
        self.pool = PooledStatistic()
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        batch, channels, height, width = features.shape
        query, key, value = (
            self.qkv(features)
            .reshape(batch, 3, self.heads, channels // self.heads, height * width)
            .unbind(1)
        )
        weights = (self.pool(_similarity, query, key) * self.temperature).softmax(-1)
        attended = (weights.to(value.dtype) @ value).reshape(batch, channels, height, width)
        projected: Tensor = self.project(attended)
        return projected

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of the two attention products."""
        batch, channels, height, width = features.shape
        return 2 * batch * height * width * channels * channels // self.heads


def _similarity(query: Tensor, key: Tensor) -> Tensor:
    return F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)


class KBTransformerBlock(nn.Module):
    """Apply feature fusion, then transposed attention, each behind a LayerNorm."""

    def __init__(self, channels: int, heads: int, bases: int, ffn_scale: float) -> None:
        """Build one block of KBNet_l."""
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.fusion = FeatureFusion(channels, bases, ffn_scale)
        self.norm2 = LayerNorm(channels)
        self.attention = TransposedAttention(channels, heads)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        features = features + self.fusion(self.norm1(features))
        attended: Tensor = self.attention(self.norm2(features))
        return features + attended


@register_model(
    "kbnet_l",
    KBNetLConfig,
    tiny=KBNetLConfig(width=12, blocks=(1, 1, 1, 1), refinement_blocks=1, bases=4),
)
class KBNetL(RestorationModel):
    """The published derainer and deblurrer, a Restormer-shaped U-Net."""

    def __init__(self, config: KBNetLConfig) -> None:
        """Build the network with fresh weights."""
        super().__init__()

        def stage(channels: int, level: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    KBTransformerBlock(
                        channels, config.heads[level], config.bases, config.ffn_scale
                    )
                    for _ in range(blocks)
                )
            )

        self.config = config
        self.spec = ModelSpec(
            in_channels=config.channels,
            out_channels=config.channels,
            multiple_of=8,
            overlap=64,
            tiling=Tiling.APPROXIMATE,
            tolerance=5 / 255,
        )
        c, blocks = config.width, config.blocks
        self.stem = nn.Conv2d(config.channels, c, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(stage(c << i, i, blocks[i]) for i in range(3))
        self.downs = nn.ModuleList(
            nn.Conv2d(c << i, c << i >> 1, 3, padding=1, bias=False) for i in range(3)
        )
        self.latent = stage(8 * c, 3, blocks[3])
        self.ups = nn.ModuleList(
            nn.Conv2d(c << i, 2 * c << i, 3, padding=1, bias=False) for i in (3, 2, 1)
        )
        self.reductions = nn.ModuleList(
            nn.Conv2d(2 * c << i, c << i, 1, bias=False) for i in (2, 1)
        )
        self.decoders = nn.ModuleList(
            (stage(4 * c, 2, blocks[2]), stage(2 * c, 1, blocks[1]), stage(2 * c, 0, blocks[0]))
        )
        self.refinement = stage(2 * c, 0, config.refinement_blocks)
        self.tail = nn.Conv2d(2 * c, config.channels, 3, padding=1, bias=False)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture; noise_std is not used."""
        features = self.stem(pad(degraded, self.spec.multiple_of))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = F.pixel_unshuffle(down(features), 2)
        features = self.latent(features)
        for index, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            features = torch.cat((F.pixel_shuffle(up(features), 2), skips.pop()), 1)
            if index < len(self.reductions):
                features = self.reductions[index](features)
            features = decoder(features)
        residual: Tensor = self.tail(self.refinement(features))
        return degraded + residual[..., : degraded.shape[2], : degraded.shape[3]]


def _point_and_depth(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, bias=False),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False),
    )
