"""KiT: a U-shape of transformer blocks whose patches attend to their nearest patches.

KiT (Lee et al., 2022), Figure 2 and Table 2 of its supplement. The paper states neither the width
C nor the ratio of the feed-forward parts, but 20.6 M parameters and 43.08 G multiply-accumulates
for 256 x 256 pixels. C = 56 with ratios of 1 in the stages and 21 in the bottleneck gives 20.93 M
and 42.53 G (`macs_layers`: the layers, as papers count; with hashing and the products of attention
72.48 G). One ratio for all stages cannot give both: a stage of the encoder and its mirror have too
few parameters for their multiplications, so that most parameters must lie in the bottleneck.

The compact family is the same network behind a pixel-unshuffled stem, told how strong the noise
is, with one round of hashing and fewer blocks at full size, so that a CPU can afford it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.blocks import LayerNorm, pad_mirrored, with_noise_map
from restorekit.models.registry import (
    ModelSpec,
    NoiseInput,
    RestorationModel,
    Tiling,
    register_model,
)
from restorekit.ops.knn_attention import knn_attention, matched_patches, patch_hashes

BRANCH_SCALE, PASSING_NOISE = 0.1, 0.3
"""Factors of fresh weights at the end of branches, and beside the identity in the convolutions that
pass features on: the network starts almost linear, which is quick to learn from."""


@dataclass(frozen=True)
class KiTConfig:
    """Describe KiT; the defaults are the published network.

    Attributes:
        channels: planes of the picture, 3 for colour and 1 for grey.
        width: channels of the first stage; they double at every stage.
        blocks: transformer blocks of each stage of the encoder, which the decoder mirrors, and
            last of the bottleneck.
        ffn_ratios: channels of the feed-forward parts of each, relative to its input.
        patch: side of a patch, r.
        neighbours: patches of a chunk, k; 1 in the bottleneck. No parameter depends on it.
        rounds: of hashing, h. No parameter depends on it.
        buckets: that a round of hashing divides the patches into, m.
        share_qk: whether queries are keys, as in Table 5.
        unshuffle: factor by which pixels are packed into planes before the first stage.
        noise_map: whether a plane with the noise deviation is an input.
        seed: of the hashing.
    """

    channels: int = 3
    width: int = 56
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    ffn_ratios: tuple[float, ...] = (1.0, 1.0, 1.0, 21.0)
    patch: int = 4
    neighbours: int = 4
    rounds: int = 4
    buckets: int = 64
    share_qk: bool = False
    unshuffle: int = 1
    noise_map: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the network cannot be built from.

        Raises:
            ConfigError: a setting is out of range or does not fit another.
        """
        if len(self.blocks) != len(self.ffn_ratios):
            raise ConfigError(
                f"blocks and ffn_ratios must have as many stages, not {len(self.blocks)} and "
                f"{len(self.ffn_ratios)}"
            )
        if min(self.patch, self.neighbours, self.rounds, self.unshuffle) < 1:
            raise ConfigError("patch, neighbours, rounds and unshuffle must be at least 1")
        if self.buckets < 2 or self.buckets % 2:
            raise ConfigError(f"buckets must be even and at least 2, not {self.buckets}")


@dataclass(frozen=True)
class KiTXSConfig(KiTConfig):
    """Describe the compact KiT for CPUs; the settings are those of KiTConfig."""

    width: int = 32
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    ffn_ratios: tuple[float, ...] = (2.0, 2.0, 2.0, 2.0)
    rounds: int = 1
    unshuffle: int = 2
    noise_map: bool = True


class KNNAttention(nn.Module):
    """Let every patch attend to the patches that hash like it, the KLA of the paper."""

    def __init__(self, channels: int, neighbours: int, config: KiTConfig, seed: int) -> None:
        """Draw one hash matrix a round; the first rounds are the same whatever their number."""
        super().__init__()
        self.patch, self.neighbours, self.share_qk = config.patch, neighbours, config.share_qk
        self.project = nn.Conv2d(channels, (2 if config.share_qk else 3) * channels, 1)
        with torch.no_grad():
            for parameter in self.project.parameters():
                parameter[-channels:] *= BRANCH_SCALE
        shape = config.rounds, config.patch**2 * channels, config.buckets // 2
        generator = torch.Generator("cpu").manual_seed(seed)
        rotations = torch.randn(shape, generator=generator, device="cpu")
        self.rotations: Tensor
        self.register_buffer("rotations", rotations, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features of the same shape."""
        projected = self.project(features).split(features.shape[1], 1)
        queries, keys, values = projected[0], projected[not self.share_qk], projected[-1]
        hashes = patch_hashes(features, self.rotations, self.patch)
        return knn_attention(queries, keys, values, hashes, self.patch, self.neighbours)

    def matches(self, features: Tensor) -> Tensor:
        """Return the (B, h, N, 2k) patches that each patch attends to, -1 where there is none."""
        hashes = patch_hashes(features, self.rotations, self.patch)
        return matched_patches(hashes, self.neighbours)

    def extra_macs(self, features: Tensor) -> int:
        """Return the multiplications of hashing, of similarities and of their sums."""
        rounds, _, half = self.rotations.shape
        return features.numel() * rounds * (half + 2 * 2 * self.neighbours * self.patch**2)


class KNNTransformerBlock(nn.Module):
    """Attend to the nearest patches, then mix channels around a depthwise convolution (KTB)."""

    def __init__(
        self, channels: int, ratio: float, neighbours: int, config: KiTConfig, seed: int
    ) -> None:
        """Build the block; the seed is that of its hashing."""
        super().__init__()
        hidden = int(channels * ratio)
        self.norm1 = LayerNorm(channels)
        self.attention = KNNAttention(channels, neighbours, config, seed)
        self.norm2 = LayerNorm(channels)
        self.mix = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )
        with torch.no_grad():
            for parameter in self.mix[-1].parameters():
                parameter.mul_(BRANCH_SCALE)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        features = features + self.attention(self.norm1(features))
        mixed: Tensor = self.mix(self.norm2(features))
        return features + mixed


def _join(channels: int) -> nn.Conv2d:
    """Return the convolution behind a skip connection, which starts by preferring the skip."""
    join = nn.Conv2d(2 * channels, channels, 1)
    with torch.no_grad():
        join.weight[:, channels:].mul_(PASSING_NOISE)[..., 0, 0] += torch.eye(channels)
    return join


def _passing(channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that starts by passing features on."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(PASSING_NOISE).add_(nn.init.dirac_(torch.empty_like(conv.weight)))
    return conv


@register_model(
    "kit_xs",
    KiTXSConfig,
    tiny=KiTXSConfig(width=8, blocks=(1, 1, 1), ffn_ratios=(2.0, 2.0, 2.0), buckets=8),
)
@register_model(
    "kit",
    KiTConfig,
    tiny=KiTConfig(width=8, blocks=(1, 1, 1), ffn_ratios=(1.0, 1.0, 2.0), rounds=2, buckets=8),
)
class KiT(RestorationModel):
    """Three convolutions in, encoder, bottleneck, decoder, three convolutions out, a residual."""

    def __init__(self, config: KiTConfig) -> None:
        """Build the network with fresh weights."""
        super().__init__()
        levels, scale = len(config.blocks) - 1, config.unshuffle
        widths = [config.width << level for level in range(levels + 1)]
        seeds = iter(range(config.seed, config.seed + 2 * sum(config.blocks)))

        def stage(level: int) -> nn.Sequential:
            neighbours = config.neighbours if level < levels else 1
            ratio = config.ffn_ratios[level]
            return nn.Sequential(
                *(
                    KNNTransformerBlock(widths[level], ratio, neighbours, config, next(seeds))
                    for _ in range(config.blocks[level])
                )
            )

        self.config = config
        self.spec = ModelSpec(
            in_channels=config.channels,
            out_channels=config.channels,
            multiple_of=config.patch * scale << levels,
            overlap=64,
            noise_input=NoiseInput.STD_MAP if config.noise_map else NoiseInput.NONE,
            tiling=Tiling.APPROXIMATE,
            tolerance=16 / 255,
        )
        planes = (config.channels + config.noise_map) * scale**2
        self.stem = nn.Sequential(
            nn.Conv2d(planes, config.width, 3, padding=1),
            _passing(config.width),
            _passing(config.width),
        )
        self.encoders = nn.ModuleList(stage(level) for level in range(levels))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths[:-1])
        self.bottleneck = stage(levels)
        self.ups = nn.ModuleList(nn.Conv2d(c, 2 * c, 1) for c in widths[:0:-1])
        self.joins = nn.ModuleList(_join(c) for c in widths[-2::-1])
        self.decoders = nn.ModuleList(stage(level) for level in range(levels)[::-1])
        self.tail = nn.Sequential(
            _passing(config.width),
            _passing(config.width),
            nn.Conv2d(config.width, config.channels * scale**2, 3, padding=1),
        )

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture.

        Raises:
            ValueError: the network was trained with a noise map and none is given.
        """
        planes = with_noise_map(degraded, noise_std) if self.config.noise_map else degraded
        scale = self.config.unshuffle
        padded = pad_mirrored(planes, scale << len(self.downs))
        packed = F.pixel_unshuffle(padded, scale).contiguous(memory_format=torch.channels_last)
        features, skips = self.stem(packed), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.bottleneck(features)
        for up, join, decoder in zip(self.ups, self.joins, self.decoders, strict=True):
            raised = F.pixel_shuffle(up(features), 2)
            features = decoder(join(torch.cat((raised, skips.pop()), 1)))
        residual = F.pixel_shuffle(self.tail(features), scale)
        return degraded + residual[..., : degraded.shape[2], : degraded.shape[3]]
