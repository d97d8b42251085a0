"""Compare what models make of noisy mosaics, and of pictures that were demosaiced first.

python tests/benchmarks/mosaics.py PHOTOGRAPHS [--models kbnet_xs.gaussian kbnet_xs.raw] [--count 8]

Mosaics are made of photographs at the noise of the AME-KPN paper's gains, developed with their
camera's settings, and compared in sRGB with what the same mosaic without noise is developed to.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import Generator, Tensor

from restorekit import Image, load_model, read_image, restore_image
from restorekit.datasets import find_pictures
from restorekit.degradations import mosaic, process, sample_camera, shot_read_noise, unprocess
from restorekit.degradations.burst import GAINS
from restorekit.engine.restore import RestoreOptions
from restorekit.image import Layout, NoiseProfile, Transfer
from restorekit.metrics import psnr

LARGEST = 512


def middle(pixels: Tensor) -> Tensor:
    """Return the middle of (3, H, W), at most LARGEST x LARGEST, with even sides."""
    sides = [min(LARGEST, size) // 2 * 2 for size in pixels.shape[-2:]]
    top, left = ((size - side) // 2 for size, side in zip(pixels.shape[-2:], sides, strict=True))
    return pixels[:, top : top + sides[0], left : left + sides[1]]


def main() -> None:
    """Print a table of mean PSNR in dB."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--models", nargs="+", default=["kbnet_xs.gaussian", "kbnet_xs.raw"])
    parser.add_argument("--count", type=int, help="photographs; all without it")
    words = parser.parse_args()
    models = {name: load_model(name) for name in words.models}
    colour = load_model("kbnet_xs.gaussian")
    columns = ("nothing", "demosaic, then kbnet_xs.gaussian", *models)
    print(f"| gain | {' | '.join(columns)} |")
    print("|--:|" + "--:|" * len(columns))
    for gain, (read, shot) in enumerate(GAINS, 1):
        scores: dict[str, list[float]] = {name: [] for name in columns}
        for number, path in enumerate(find_pictures([words.photographs])[: words.count]):
            generator = Generator().manual_seed(number)
            camera = sample_camera((), generator)
            clean = mosaic(unprocess(middle(read_image(path).to_srgb().pixels), camera))
            noisy = shot_read_noise(clean, shot, read, generator)
            truth, developed = process(clean, camera), process(noisy, camera)
            results = {"nothing": developed}
            image = Image(developed, Transfer.SRGB, Layout.RGB)
            results[columns[1]] = restore_image(image, colour)[0].pixels.clamp(0, 1)
            raw = Image(noisy, Transfer.LINEAR, Layout.BAYER)
            options = RestoreOptions(noise=NoiseProfile(shot, read))
            for name, model in models.items():
                results[name] = process(restore_image(raw, model, options)[0].pixels, camera)
            for name, result in results.items():
                scores[name].append(psnr(result, truth))
        cells = " | ".join(f"{mean(found):.2f}" for found in scores.values())
        print(f"| {gain} | {cells} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
