"""What the bundled network for mosaics gains, and when it is chosen."""

from pathlib import Path

import pytest
from torch import Generator

from restorekit import Image, load_model, read_image, restore_image
from restorekit.degradations import mosaic, process, sample_camera, shot_read_noise, unprocess
from restorekit.degradations.burst import GAINS
from restorekit.engine.domain import default_model
from restorekit.engine.restore import RestoreOptions
from restorekit.image import Layout, NoiseProfile, Transfer
from restorekit.metrics import psnr
from restorekit.tasks import TASKS

SIDE = 256


@pytest.mark.parametrize(("gain", "ahead"), [(1, 2.5), (2, 2.0), (3, 1.0), (4, 0.7)])
def test_mosaics_gain_over_the_network_for_colour(
    shared_data: Path, gain: int, ahead: float
) -> None:
    read, shot = GAINS[gain - 1]
    options = RestoreOptions(noise=NoiseProfile(shot, read), device="cpu")
    models = [load_model(name) for name in ("kbnet_xs.gaussian", "kbnet_xs.raw")]
    gains = []
    for number, path in enumerate(sorted((shared_data / "test" / "kodak24").iterdir())[:8]):
        pixels = read_image(path).pixels
        top, left = ((size - SIDE) // 2 for size in pixels.shape[-2:])
        generator = Generator().manual_seed(number)
        camera = sample_camera((), generator)
        clean = mosaic(unprocess(pixels[:, top : top + SIDE, left : left + SIDE], camera))
        noisy = shot_read_noise(clean, shot, read, generator)
        truth = process(clean, camera)
        image = Image(noisy, Transfer.LINEAR, Layout.BAYER)
        colour, raw = (
            psnr(process(restore_image(image, model, options)[0].pixels, camera), truth)
            for model in models
        )
        gains.append(raw - colour)
    assert sum(gains) / len(gains) >= ahead


@pytest.mark.parametrize(
    ("layout", "chosen"),
    [
        (Layout.BAYER, "kbnet_xs.raw"),
        (Layout.RGB, "kbnet_xs.gaussian"),
        (Layout.GRAY, "kbnet_xs.gaussian"),
    ],
)
def test_the_layout_chooses_the_network(layout: Layout, chosen: str) -> None:
    assert default_model(TASKS["denoise"], layout) == chosen
