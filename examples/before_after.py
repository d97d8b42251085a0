"""Draw what each command does, the picture before to the left of the one after: README's pictures.

python examples/before_after.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor

from restorekit import Image, load_model, read_image, restore_image, write_image
from restorekit.degradations import defocused, rainy, shaken
from restorekit.io.raw import develop, plain_rendering
from restorekit.metrics import psnr

FOLDER = Path(__file__).parent
HEIGHT, WIDTH = 240, 360


@dataclass(frozen=True)
class Scene:
    """Say what is shown of an example and what is done to it.

    Attributes:
        truth: picture of examples/.
        place: row and column of the part that is shown.
        model: that restores it.
        degrade: what is done to the truth; None where its RAW file is restored.
        seed: of that.
    """

    truth: str
    place: tuple[int, int]
    model: str
    degrade: Callable[[Tensor, Generator], Tensor] | None = None
    seed: int = 0


SCENES = {
    "denoise": Scene("night_truth.png", (300, 300), "kbnet_xs.raw"),
    "derain": Scene(
        "night_truth.png", (300, 300), "kbnet_xs.rain", partial(rainy, heaviness=(0.4, 0.4))
    ),
    "motion": Scene(
        "day_truth.png", (60, 200), "kbnet_xs.motion", partial(shaken, shortest=8.0), seed=2
    ),
    "defocus": Scene(
        "night_truth.png", (300, 300), "kbnet_xs.defocus", partial(defocused, smallest=2.5)
    ),
}


def main(folder: Path) -> dict[str, tuple[float, float]]:
    """Write a picture of each scene and return its PSNR before and after in dB."""
    gains = {}
    for name, scene in SCENES.items():
        truth = read_image(FOLDER / scene.truth)
        before, after = _both(scene, truth)
        gains[name] = psnr(before, truth.pixels), psnr(after, truth.pixels)
        print("{}: {:.2f} -> {:.2f} dB".format(name, *gains[name]))
        top, left = scene.place
        shown = [p[:, top : top + HEIGHT, left : left + WIDTH] for p in (before, after)]
        write_image(truth.with_pixels(torch.cat(shown, -1)), folder / f"{name}.jpg", strip="all")
    return gains


def _both(scene: Scene, truth: Image) -> tuple[Tensor, Tensor]:
    model = load_model(scene.model)
    if scene.degrade is None:
        raw = FOLDER / scene.truth.replace("_truth.png", ".dng")
        return plain_rendering(raw).pixels, develop(restore_image(read_image(raw), model)[0]).pixels
    degraded = truth.with_pixels(scene.degrade(truth.pixels, Generator().manual_seed(scene.seed)))
    return degraded.pixels, restore_image(degraded, model)[0].pixels.clamp(0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER / "pictures")
