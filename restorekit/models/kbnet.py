"""KBNet_s and the compact kbnet_xs: U-shaped restoration with kernel basis attention.

KBNet (Zhang et al., 2023): Section 3.2 for the block, Section 4.1 for the network. The compact
family works at half resolution behind a pixel-unshuffled stem and gives kernel basis attention to
the last block of every stage, with fewer bases, so that a CPU can afford it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.aggregation import (
    AGGREGATIONS,
    KERNEL_BASIS,
    WINDOW,
    SoftmaxCoefficients,
    replacement,
)
from restorekit.models.blocks import (
    START_SCALE,
    ChannelAttention,
    Coefficients,
    KernelBasis,
    LayerNorm,
    ScaledConv,
    pad,
    pad_mirrored,
    simple_gate,
    with_noise_map,
)
from restorekit.models.registry import (
    ModelSpec,
    NoiseInput,
    RestorationModel,
    Tiling,
    register_model,
)

BRANCHES = ("dw", "dw+ca", "dw+ca+kba")


@dataclass(frozen=True)
class KBNetSConfig:
    """Describe KBNet_s; the defaults are the published Gaussian denoiser.

    Attributes:
        channels: planes of the picture, 3 for colour and 1 for grey.
        width: channels of the first level; they double at every level.
        encoder_blocks: blocks of each encoder level.
        middle_blocks: blocks of the lowest level.
        decoder_blocks: blocks of each decoder level, lowest first.
        bases: kernel bases of every block, 4 to 128 in Table 8; 0 leaves only their values.
        lightweight: 3x3 depthwise instead of 5x5 grouped spatial branch (SIDD, SenseNoise).
        ffn_scale: channels of the feed-forward part, relative to its input.
        aggregation: kba, or what stands in its place in Table 7: kba-softmax (coefficients that
            sum to 1), dynamic (one mixture of the bases a picture), kernel-prediction (a
            depthwise kernel a pixel) or window (shifted-window self-attention).
        branches: dw (spatial), dw+ca (and channel attention) or dw+ca+kba (and the aggregation),
            as in Table 9.
    """

    channels: int = 3
    width: int = 64
    encoder_blocks: tuple[int, ...] = (2, 2, 4, 8)
    middle_blocks: int = 12
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 2)
    bases: int = 32
    lightweight: bool = False
    ffn_scale: float = 2.0
    aggregation: str = "kba"
    branches: str = "dw+ca+kba"

    def __post_init__(self) -> None:
        """Check the switches."""
        if self.aggregation not in AGGREGATIONS:
            raise ConfigError(f"aggregation must be one of {', '.join(AGGREGATIONS)}")
        if self.branches not in BRANCHES:
            raise ConfigError(f"branches must be one of {', '.join(BRANCHES)}")
        if self.aggregation == "dynamic" and not self.bases:
            raise ConfigError("dynamic aggregation needs bases")


@dataclass(frozen=True)
class KBNetXSConfig:
    """Describe the compact family.

    Attributes:
        channels: planes of the picture.
        width: channels of the first level, at half the picture's size; they double at every level.
        encoder_blocks: blocks of each encoder level.
        middle_blocks: blocks of the lowest level.
        decoder_blocks: blocks of each decoder level, lowest first.
        bases: kernel bases in the last block of a stage, for each level from the top; 0 for none.
        noise_map: whether a plane with the noise deviation is an input.
    """

    channels: int = 3
    width: int = 32
    encoder_blocks: tuple[int, ...] = (2, 2, 4)
    middle_blocks: int = 4
    decoder_blocks: tuple[int, ...] = (2, 2, 2)
    bases: tuple[int, ...] = (0, 8, 8, 16)
    noise_map: bool = True


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
        normal = self.norm1(features)
        values = None if self.values is None else self.values(normal)
        if self.kernels is not None and self.coefficients is not None:
            values = self.kernels(values, self.coefficients(normal))
        fused = self.spatial(normal) if values is None else values * self.spatial(normal)
        if self.attention is not None:
            fused = fused * self.attention(normal)
        projected: Tensor = self.project(fused, self.beta)
        fused = features + projected
        gated = simple_gate(self.expand(self.norm2(fused)))
        widened: Tensor = self.reduce(gated, self.gamma)
        return fused + widened


class _GatedUNet(nn.Module):
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


@register_model(
    "kbnet_s",
    KBNetSConfig,
    tiny=KBNetSConfig(
        width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1), bases=4
    ),
)
class KBNetS(RestorationModel):
    """The published denoiser, a plain U-shape of KBBlocks with residual output."""

    def __init__(self, config: KBNetSConfig) -> None:
        """Build the network with fresh weights."""
        super().__init__()

        def stage(level: int, channels: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    KBBlock(
                        channels,
                        config.bases,
                        config.lightweight,
                        config.ffn_scale,
                        aggregation=config.aggregation,
                        branches=config.branches,
                        shifted=number % 2 == 1,
                    )
                    for number in range(blocks)
                )
            )

        grid = WINDOW if config.aggregation == "window" else 1
        self.config = config
        self.spec = ModelSpec(
            in_channels=config.channels,
            out_channels=config.channels,
            multiple_of=grid << len(config.encoder_blocks),
            overlap=64,
            tiling=Tiling.APPROXIMATE,
            tolerance=5 / 255,
        )
        self.stem = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.body = _GatedUNet(
            config.width, config.encoder_blocks, config.middle_blocks, config.decoder_blocks, stage
        )
        self.tail = nn.Conv2d(config.width, config.channels, 3, padding=1)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture; noise_std is not used."""
        padded = pad(degraded, self.spec.multiple_of)
        residual: Tensor = self.tail(self.body(self.stem(padded)))
        return degraded + residual[..., : degraded.shape[2], : degraded.shape[3]]


@register_model(
    "kbnet_xs",
    KBNetXSConfig,
    tiny=KBNetXSConfig(
        width=8,
        encoder_blocks=(1, 1),
        middle_blocks=1,
        decoder_blocks=(1, 1),
        bases=(0, 4, 4),
    ),
)
class KBNetXS(RestorationModel):
    """The compact denoiser for CPUs: KBBlocks at half resolution, told how strong the noise is."""

    def __init__(self, config: KBNetXSConfig) -> None:
        """Build the network with fresh weights."""
        super().__init__()

        def stage(level: int, channels: int, blocks: int) -> nn.Sequential:
            bases = [0] * (blocks - 1) + [config.bases[level]]
            return nn.Sequential(*(KBBlock(channels, count, True, 2.0) for count in bases))

        self.config = config
        self.spec = ModelSpec(
            in_channels=config.channels,
            out_channels=config.channels,
            multiple_of=2 << len(config.encoder_blocks),
            overlap=48,
            noise_input=NoiseInput.STD_MAP if config.noise_map else NoiseInput.NONE,
            tiling=Tiling.APPROXIMATE,
            tolerance=5 / 255,
        )
        planes = config.channels + config.noise_map
        self.stem = nn.Conv2d(4 * planes, config.width, 3, padding=1)
        self.body = _GatedUNet(
            config.width, config.encoder_blocks, config.middle_blocks, config.decoder_blocks, stage
        )
        self.tail = nn.Conv2d(config.width, 4 * config.channels, 3, padding=1)

    def adopted(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of another network as this one can begin with them.

        A network for mosaics begins with one for colour, for which the mean of both greens is
        green; a deeper one with a shallower one, between whose blocks others at first do nothing.
        """
        adopted = dict(start)
        if self.config.channels == 4 and len(start["tail.bias"]) == 3 * 4:
            red, green, blue, *told = torch.split(start["stem.weight"], 4, dim=1)
            adopted["stem.weight"] = torch.cat((red, green / 2, green / 2, blue, *told), dim=1)
            for name in "tail.weight", "tail.bias":
                red, green, blue = torch.split(start[name], 4)
                adopted[name] = torch.cat((red, green, green, blue))
        for name, stage in self.body.named_modules():
            if isinstance(stage, nn.Sequential) and isinstance(stage[0], KBBlock):
                _stretch(adopted, f"body.{name}", stage)
        return adopted

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture.

        Raises:
            ValueError: the network was trained with a noise map and none is given.
        """
        planes = with_noise_map(degraded, noise_std) if self.config.noise_map else degraded
        packed = F.pixel_unshuffle(pad_mirrored(planes, self.spec.multiple_of), 2)
        packed = packed.contiguous(memory_format=torch.channels_last)
        residual = F.pixel_shuffle(self.tail(self.body(self.stem(packed))), 2)
        return degraded + residual[..., : degraded.shape[2], : degraded.shape[3]]


def _stretch(weights: dict[str, Tensor], name: str, stage: nn.Sequential) -> None:
    """Bring the weights of a stage to its number of blocks.

    The last stays last, since it alone has kernel bases; blocks before it that are new do nothing.
    """
    keys = [key for key in weights if key.startswith(f"{name}.")]
    numbers = {int(key.removeprefix(f"{name}.").split(".")[0]) for key in keys}
    last, own = max(numbers, default=len(stage) - 1), len(stage) - 1
    if last == own:
        return
    for key in keys:
        if key.startswith(f"{name}.{last}."):
            weights[key.replace(f"{name}.{last}.", f"{name}.{own}.", 1)] = weights.pop(key)
    for number in range(last, own):
        for scale in "beta", "gamma":
            weights[f"{name}.{number}.{scale}"] = torch.zeros_like(weights[f"{name}.{own}.{scale}"])
