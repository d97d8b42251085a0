"""Compare what is told of white noise in finished photographs: one number, or each brightness.

python tests/benchmarks/finished.py PHOTOGRAPHS [--count 6]

Noise is added to the encoded photograph, or to its linear light, which is encoded after; then the
photograph is rounded to 8 bits. `denoise` takes the last column but one, unless the noise counts
as that of a camera, which the last column says.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import Generator

from restorekit import Image, load_model, read_image, restore_image
from restorekit.datasets import find_pictures
from restorekit.degradations import gaussian_noise, shot_read_noise
from restorekit.engine.restore import RestoreOptions
from restorekit.image import Layout, Transfer
from restorekit.metrics import psnr
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.finished_noise import finished_noise
from restorekit.ops.white_noise import estimate_noise_std

WHITE = (2.0, 5.0, 10.0, 25.0, 50.0)
OF_LIGHT = ((2e-3, 2e-3), (1e-2, 5e-3), (3e-2, 2e-2), (5e-4, 1e-2), (1e-4, 5e-3))
COLUMNS = ("nothing", "kbnet_xs.photo", "kbnet_xs.gaussian, one number", "by brightness")


def main() -> None:
    """Print a table of mean PSNR in dB."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, help="photographs; all without it")
    words = parser.parse_args()
    told, blind = load_model("kbnet_xs.gaussian"), load_model("kbnet_xs.photo")
    print(f"| noise | {' | '.join(COLUMNS)} | from a camera |")
    print("|---|" + "--:|" * (len(COLUMNS) + 1))
    for noise in (*WHITE, *OF_LIGHT):
        scores, from_camera = [], []
        for number, path in enumerate(find_pictures([words.photographs])[: words.count]):
            generator = Generator().manual_seed(number)
            clean = read_image(path).to_srgb().pixels
            if isinstance(noise, float):
                noisy = gaussian_noise(clean, noise / 255, generator)
            else:
                noisy = linear_to_srgb(shot_read_noise(srgb_to_linear(clean), *noise, generator))
            image = Image((noisy.clamp(0, 1) * 255).round() / 255, Transfer.SRGB, Layout.RGB)
            even = RestoreOptions(noise=255 * estimate_noise_std(image.pixels))
            results = (
                image,
                restore_image(image, blind)[0],
                restore_image(image, told, even)[0],
                restore_image(image, told)[0],
            )
            scores.append([psnr(result.pixels.clamp(0, 1), clean) for result in results])
            from_camera.append(finished_noise(image.pixels).from_camera)
        cells = " | ".join(f"{mean(column):.2f}" for column in zip(*scores, strict=True))
        name = f"{noise:g}" if isinstance(noise, float) else "light, " + ", ".join(map(str, noise))
        print(f"| {name} | {cells} | {sum(from_camera)} of {len(from_camera)} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
