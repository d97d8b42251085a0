"""A network that gives its input back, slowly if asked; run as a program it is the command line."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restorekit.cli.main import main
from restorekit.hub import ModelCard, save_model
from restorekit.models import ModelSpec, RestorationModel, architectures, register_model


@dataclass(frozen=True)
class ToyConfig:
    seconds: float = 0.0


class Toy(RestorationModel):
    spec = ModelSpec(in_channels=3, out_channels=3, multiple_of=1, overlap=0, dtypes=("float32",))

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.seconds = config.seconds
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        time.sleep(self.seconds)
        return degraded * self.gain


def register_toy() -> None:
    """Register at run time, so that tests collected over all architectures do not see it."""
    if "toy" not in architectures():
        register_model("toy", ToyConfig, tiny=ToyConfig())(Toy)


def save_toy(
    folder: Path, *, seconds: float = 0.0, gain: float = 1.0, task: str = "denoise"
) -> Path:
    register_toy()
    model = Toy(ToyConfig(seconds))
    with torch.no_grad():
        model.gain.fill_(gain)
    card = ModelCard(
        name="toy.test",
        architecture="toy",
        config={"seconds": seconds},
        task=task,
        transfer="srgb",
        layout="rgb",
    )
    save_model(model, card, folder)
    return folder


if __name__ == "__main__":
    register_toy()
    main()
