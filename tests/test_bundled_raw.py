"""What the bundled network for mosaics gains, and when it is chosen."""

from pathlib import Path

import pytest
import torch
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


@pytest.mark.parametrize(("gain", "ahead"), [(1, 2.0), (2, 0.5)])
def test_mosaics_of_weak_noise_gain_over_the_network_for_colour(
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
    ("gain", "chosen"),
    [(1, "kbnet_xs.raw"), (2, "kbnet_xs.raw"), (3, "kbnet_xs.gaussian"), (4, "kbnet_xs.gaussian")],
)
def test_the_noise_chooses_the_network(gain: int, chosen: str, generator: Generator) -> None:
    read, shot = GAINS[gain - 1]
    clean = torch.linspace(0.05, 0.6, 96).expand(4, 96, 96).contiguous()
    pixels = shot_read_noise(clean, shot, read, generator)
    image = Image(pixels, Transfer.LINEAR, Layout.BAYER)
    assert default_model(TASKS["denoise"], image, NoiseProfile(shot, read)) == chosen
    assert default_model(TASKS["denoise"], image, None) == chosen
    colour = Image(pixels[:3], Transfer.SRGB, Layout.RGB)
    assert default_model(TASKS["denoise"], colour, None) == "kbnet_xs.gaussian"
