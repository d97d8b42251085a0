"""A network whose result is known, and pictures for it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from restorekit.hub import LoadedModel, ModelCard
from restorekit.image import Image, Layout, Transfer
from restorekit.models.registry import ModelSpec, NoiseInput, RestorationModel

CARD = ModelCard(
    name="blend.test",
    architecture="blend_test",
    config={},
    task="denoise",
    transfer="srgb",
    layout="rgb",
)


@dataclass(frozen=True)
class BlendConfig:
    gain: float = 0.0


class BlendModel(RestorationModel):
    """Add gain times a 3x3 mean to the picture; gain 0 is the identity."""

    def __init__(self, config: BlendConfig) -> None:
        super().__init__()
        self.spec = ModelSpec(
            in_channels=3,
            out_channels=3,
            multiple_of=4,
            overlap=16,
            noise_input=NoiseInput.STD_MAP,
        )
        self.gain = config.gain
        self.mean = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        nn.init.constant_(self.mean.weight, 1 / 9)
        self.shapes: list[tuple[int, ...]] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        assert noise_std is not None
        assert noise_std.shape == (len(degraded), 1, *degraded.shape[-2:])
        self.shapes.append(tuple(degraded.shape))
        mean: Tensor = self.mean(degraded)
        self.dtypes.add(mean.dtype)
        return degraded + self.gain * mean


def loaded(model: RestorationModel, **card: Any) -> LoadedModel:
    return LoadedModel(model.eval(), replace(CARD, **card))


def identity() -> LoadedModel:
    return loaded(BlendModel(BlendConfig()))


def picture(height: int, width: int, layout: Layout = Layout.RGB, **fields: Any) -> Image:
    planes = {Layout.RGB: 3, Layout.GRAY: 1, Layout.BAYER: 4}[layout]
    transfer = Transfer.LINEAR if layout is Layout.BAYER else Transfer.SRGB
    pixels = torch.rand(planes, height, width, generator=torch.Generator().manual_seed(0))
    return Image(pixels * 0.8, transfer, layout, **fields)
