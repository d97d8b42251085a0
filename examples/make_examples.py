"""Write the example pictures: a noisy RAW night, a noisy PNG day, and the truth of both.

python examples/make_examples.py [FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import scene
import torch
from torch import Generator

from restorekit import Image, write_image
from restorekit.degradations import gaussian_noise, shot_read_noise
from restorekit.image import Layout, Metadata, NoiseProfile, Transfer
from restorekit.io.dng import write_cfa_dng
from restorekit.io.raw import plain_rendering
from restorekit.ops.color import pack_bayer

HEIGHT, WIDTH = 640, 960
NIGHT_NOISE = NoiseProfile(shot=8e-3, read=1e-2)
DAY_SIGMA = 30 / 255
WHITE_BALANCE = (1.9, 1.0, 1.5)


def photograph(linear: torch.Tensor, noise: NoiseProfile | None, generator: Generator) -> Image:
    """Photograph a linear (3, H, W) scene by an RGGB sensor, noisy where a profile is given."""
    red, green, blue = linear / torch.tensor(WHITE_BALANCE).view(3, 1, 1)
    samples = green.clone()
    samples[0::2, 0::2] = red[0::2, 0::2]
    samples[1::2, 1::2] = blue[1::2, 1::2]
    if noise is not None:
        samples = shot_read_noise(samples, noise.shot, noise.read, generator).clamp(max=1)
    metadata = Metadata(
        cfa="RGGB",
        white_balance=WHITE_BALANCE,
        iso=6400,
        exposure_time=1 / 60,
        make="restorekit",
        model="procedural",
        bit_depth=16,
        noise=noise,
    )
    return Image(pack_bayer(samples, "RGGB"), Transfer.LINEAR, Layout.BAYER, metadata)


def write_night(folder: Path, generator: Generator) -> None:
    """Write night.dng, and night_truth.png as LibRaw develops the same mosaic without noise."""
    linear = scene.night(HEIGHT, WIDTH, generator)
    write_cfa_dng(photograph(linear, NIGHT_NOISE, generator), folder / "night.dng")
    with TemporaryDirectory() as place:
        clean = Path(place) / "clean.dng"
        write_cfa_dng(photograph(linear, None, generator), clean)
        truth = plain_rendering(clean)
    metadata = Metadata(bit_depth=8, icc_profile=truth.metadata.icc_profile)
    write_image(replace(truth, metadata=metadata), folder / "night_truth.png")


def write_day(folder: Path, generator: Generator) -> None:
    """Write day.png with white Gaussian noise, and day_truth.png."""
    truth = Image(scene.day(400, 600, generator), Transfer.LINEAR, Layout.RGB).to_srgb()
    write_image(truth, folder / "day_truth.png")
    noisy = gaussian_noise(truth.pixels, DAY_SIGMA, generator)
    write_image(truth.with_pixels(noisy), folder / "day.png")


def main(folder: Path) -> None:
    """Write all examples into a folder."""
    generator = Generator().manual_seed(7)
    write_night(folder, generator)
    write_day(folder, generator)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
