"""Make pairs from photographs: noise, rain, motion or defocus, laid out as published sets are.

python examples/make_pairs.py PHOTOGRAPHS OUT --task rain

| --task  | writes                                                          | layout of | protocol |
|---------|-----------------------------------------------------------------|-----------|----------|
| noise   | OUT/noise/{noisy,clean}                                         | PolyU     | sidd     |
| rain    | OUT/rain_light/{input,target} and OUT/rain_heavy/{input,target} | Rain13K   | derain-y |
| motion  | OUT/motion/{blur,sharp}                                         | GoPro     | gopro    |
| defocus | OUT/defocus/test_c/{source,target}                              | DPDD      | dpdd     |

The same photographs and seed give the same pairs. Each of the folders can be measured, and all
of them, also all of OUT, can be trained on:

restorekit eval --protocol derain-y --data OUT/rain_light --method none
restorekit train examples/recipes/kbnet_l_rain.toml --data OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Generator, Tensor

from restorekit import read_image, write_image
from restorekit.datasets import find_pictures
from restorekit.degradations import defocused, photographed, rainy, shaken

Make = Callable[[Tensor, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Pairs:
    """Say what a set of pairs, degraded and clean, is made by and where it lies."""

    make: Make
    degraded: str
    clean: str


def _beside(degrade: Callable[[Tensor, Generator], Tensor]) -> Make:
    """Return what makes pairs of a degraded picture and the picture itself."""
    return lambda clean, generator: (degrade(clean, generator), clean)


SETS = {
    "noise": (Pairs(partial(photographed, spared=0.0), "noise/noisy", "noise/clean"),),
    "rain": (
        Pairs(
            _beside(partial(rainy, heaviness=(0.2, 0.5))), "rain_light/input", "rain_light/target"
        ),
        Pairs(
            _beside(partial(rainy, heaviness=(0.6, 1.0))), "rain_heavy/input", "rain_heavy/target"
        ),
    ),
    "motion": (Pairs(_beside(partial(shaken, shortest=4.0)), "motion/blur", "motion/sharp"),),
    "defocus": (
        Pairs(
            _beside(partial(defocused, smallest=1.0)),
            "defocus/test_c/source",
            "defocus/test_c/target",
        ),
    ),
}


def make_pairs(
    photographs: Path, out: Path, task: str, seed: int = 0, count: int | None = None
) -> None:
    """Write count pairs of each set of a task, one for every photograph where count is None.

    Where there are fewer photographs than that, they are taken again, with other draws.
    """
    paths = find_pictures([photographs])
    for number in range(count or len(paths)):
        clean = read_image(paths[number % len(paths)]).to_srgb()
        for pairs in SETS[task]:
            generator = Generator().manual_seed(1_000_000 * seed + number)
            made = pairs.make(clean.pixels, generator)
            for pixels, place in zip(made, (pairs.degraded, pairs.clean), strict=True):
                picture = clean.with_pixels(pixels)
                write_image(picture, out / place / f"{number + 1:05}.png", strip="all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make pairs from photographs.")
    parser.add_argument("photographs", type=Path, help="folder of clean pictures")
    parser.add_argument("out", type=Path, help="folder for the sets of pairs")
    parser.add_argument("--task", choices=SETS, default="rain", help="what is done to them")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--count", type=int, help="pairs of each set, one a photograph without it")
    given = parser.parse_args()
    make_pairs(given.photographs, given.out, given.task, given.seed, given.count)
