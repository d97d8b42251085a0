"""Write the example pictures: a noisy RAW night, a noisy PNG day, a RAW burst, and their truth.

python examples/make_examples.py [FOLDER]
"""

from __future__ import annotations

import struct
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
from restorekit.io.exif import (
    EXIF_IFD,
    EXPOSURE_TIME,
    F_NUMBER,
    ISO,
    TAKEN,
    TAKEN_FRACTION,
    new_exif,
)
from restorekit.io.ifd import Entry, short
from restorekit.io.raw import plain_rendering
from restorekit.ops.color import pack_bayer

HEIGHT, WIDTH = 640, 960
NIGHT_NOISE = NoiseProfile(shot=8e-3, read=1e-2)
DAY_SIGMA = 30 / 255
WHITE_BALANCE = (1.9, 1.0, 1.5)
BURST_SIZE, BURST_MARGIN = (384, 512), 16
BURST_NOISE = NoiseProfile(shot=1e-2, read=2.5e-2)
BURST_SHAKE = (
    (-6.3, 3.1, 0.21),
    (4.4, -7.6, -0.13),
    (1.7, -2.2, 0.04),
    (8.2, 5.3, 0.35),
    (-2.7, -4.9, -0.28),
    (-9.1, 1.6, 0.09),
    (3.8, 9.4, -0.33),
    (7.5, -1.2, 0.17),
)
BURST_REFERENCE = 6
"""The frame that is the sharpest, with its part of the scene and its noise."""


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
    write_truth(linear, folder / "night_truth.png", generator)


def write_truth(linear: torch.Tensor, path: Path, generator: Generator) -> None:
    """Write a linear (3, H, W) scene as LibRaw develops its mosaic without noise."""
    with TemporaryDirectory() as place:
        clean = Path(place) / "clean.dng"
        write_cfa_dng(photograph(linear, None, generator), clean)
        truth = plain_rendering(clean)
    metadata = Metadata(bit_depth=8, icc_profile=truth.metadata.icc_profile)
    write_image(replace(truth, metadata=metadata), path)


def write_day(folder: Path, generator: Generator) -> None:
    """Write day.png with white Gaussian noise, and day_truth.png."""
    truth = Image(scene.day(400, 600, generator), Transfer.LINEAR, Layout.RGB).to_srgb()
    write_image(truth, folder / "day_truth.png")
    noisy = gaussian_noise(truth.pixels, DAY_SIGMA, generator)
    write_image(truth.with_pixels(noisy), folder / "day.png")


def write_burst(folder: Path, generator: Generator) -> None:
    """Write burst/shot_1.dng to shot_8.dng, a ship passing by, and burst_truth.png of one."""
    height, width = (side + 2 * BURST_MARGIN for side in BURST_SIZE)
    town = scene.night(height, width, generator)
    (folder / "burst").mkdir(exist_ok=True)
    for number, shake in enumerate(BURST_SHAKE, 1):
        view = scene.with_ship(town, 0.2 + 0.07 * number)
        view = scene.seen_by_hand(view, BURST_MARGIN, shake)
        shot = photograph(view, BURST_NOISE, generator)
        metadata = replace(shot.metadata, exif=_exif(number))
        path = folder / "burst" / f"shot_{number}.dng"
        write_cfa_dng(replace(shot, metadata=metadata), path, bits=12)
        if number == BURST_REFERENCE:
            write_truth(view, folder / "burst_truth.png", generator)


def _exif(number: int) -> bytes:
    """Return the EXIF block of a shot of the burst; they lie a tenth of a second apart."""
    stated = {
        EXPOSURE_TIME: Entry(5, 1, struct.pack("<II", 1, 60)),
        F_NUMBER: Entry(5, 1, struct.pack("<II", 28, 10)),
        ISO: short(6400),
        TAKEN: Entry(2, 20, b"2026:01:31 22:15:07\0"),
        TAKEN_FRACTION: Entry(2, 2, b"%d\0" % number),
    }
    return new_exif({}, {EXIF_IFD: stated})


def main(folder: Path) -> None:
    """Write all examples into a folder."""
    generator = Generator().manual_seed(7)
    write_night(folder, generator)
    write_day(folder, generator)
    write_burst(folder, generator)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
