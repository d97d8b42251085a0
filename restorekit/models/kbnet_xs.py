"""kbnet_xs: KBNet_s made compact for CPUs.

It works at half resolution behind a pixel-unshuffled stem and gives kernel basis attention to the
last block of every stage, with fewer bases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.models.blocks import pad_mirrored, with_noise_map
from restorekit.models.kb_unet import GatedUNet, KBBlock
from restorekit.models.registry import (
    ModelSpec,
    NoiseInput,
    RestorationModel,
    Tiling,
    register_model,
)


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
        self.body = GatedUNet(
            config.width, config.encoder_blocks, config.middle_blocks, config.decoder_blocks, stage
        )
        self.tail = nn.Conv2d(config.width, 4 * config.channels, 3, padding=1)

    def adopted(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of another network as this one can begin with them.

        A network for mosaics begins with one for colour, for which the mean of both greens is
        green; one that is not told the noise with one that is, as if told that there is none; a
        deeper one with a shallower one, between whose blocks others at first do nothing.
        """
        adopted = dict(start)
        if self.config.channels == 4 and len(start["tail.bias"]) == 3 * 4:
            red, green, blue, *told = torch.split(start["stem.weight"], 4, dim=1)
            adopted["stem.weight"] = torch.cat((red, green / 2, green / 2, blue, *told), dim=1)
            for name in "tail.weight", "tail.bias":
                red, green, blue = torch.split(start[name], 4)
                adopted[name] = torch.cat((red, green, green, blue))
        adopted["stem.weight"] = adopted["stem.weight"][:, : self.stem.in_channels]
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
