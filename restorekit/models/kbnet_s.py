"""KBNet_s: U-shaped restoration with kernel basis attention.

KBNet (Zhang et al., 2023): Section 4.1 and the ablations of Tables 7 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.aggregation import AGGREGATIONS, WINDOW
from restorekit.models.blocks import pad
from restorekit.models.kb_unet import GatedUNet, KBBlock
from restorekit.models.registry import ModelSpec, RestorationModel, Tiling, register_model

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
        self.body = GatedUNet(
            config.width, config.encoder_blocks, config.middle_blocks, config.decoder_blocks, stage
        )
        self.tail = nn.Conv2d(config.width, config.channels, 3, padding=1)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture; noise_std is not used."""
        padded = pad(degraded, self.spec.multiple_of)
        residual: Tensor = self.tail(self.body(self.stem(padded)))
        return degraded + residual[..., : degraded.shape[2], : degraded.shape[3]]
