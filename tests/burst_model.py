"""A network for bursts whose result is known: the mean of the frames that are there."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restorekit.hub import LoadedModel, ModelCard, save_model
from restorekit.models.registry import (
    ModelSpec,
    NoiseInput,
    RestorationModel,
    architectures,
    register_model,
)

CARD = ModelCard(
    name="mean.burst",
    architecture="mean_of_burst",
    config={},
    task="burst",
    transfer="linear",
    layout="gray",
)


@dataclass(frozen=True)
class MeanConfig:
    channels: int = 1


class MeanOfBurst(RestorationModel):
    def __init__(self, config: MeanConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = ModelSpec(
            in_channels=8 * config.channels,
            out_channels=config.channels,
            multiple_of=4,
            overlap=8,
            frames=8,
            noise_input=NoiseInput.STD_MAP,
            dtypes=("float32",),
        )
        self.gain = nn.Parameter(torch.ones(()))
        self.counts: set[int] = set()
        self.noise: list[Tensor] = []

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        assert noise_std is not None
        assert noise_std.shape == (len(degraded), 1, *degraded.shape[-2:])
        frames = degraded.unflatten(1, (-1, self.config.channels))
        assert 2 <= frames.shape[1] <= 8
        self.counts.add(frames.shape[1])
        self.noise.append(noise_std)
        there = (frames != 0).flatten(2).any(2).float()[:, :, None, None, None]
        return self.gain * (frames * there).sum(1) / there.sum(1)


def mean_of_burst() -> LoadedModel:
    return LoadedModel(MeanOfBurst(MeanConfig()).eval(), CARD)


def save_mean_of_burst(folder: Path) -> Path:
    if CARD.architecture not in architectures():
        register_model(CARD.architecture, MeanConfig, tiny=MeanConfig())(MeanOfBurst)
    save_model(MeanOfBurst(MeanConfig()), CARD, folder)
    return folder
