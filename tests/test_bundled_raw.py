"""What the bundled network for mosaics gains, and when it is chosen."""

from pathlib import Path

import pytest
from torch import Generator

from restorekit import Image, load_model, read_image, restore_image
from restorekit.degradations import mosaic, process, sample_camera, shot_read_noise, unprocess
from restorekit.degradations.burst import GAINS
from restorekit.engine.domain import default_model
from restorekit.engine.quick_score import drawn_pictures
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


@pytest.mark.parametrize("least", [0.0, -0.03])
def test_noise_that_was_clipped_at_black_is_undone(least: float) -> None:
    read, shot = GAINS[2]
    options = RestoreOptions(noise=NoiseProfile(shot, read), device="cpu")
    dark = 0.1 * drawn_pictures(Generator().manual_seed(0))[0] ** 2
    clean, camera = mosaic(dark), sample_camera((), Generator().manual_seed(1))
    noisy = shot_read_noise(clean, shot, read, Generator().manual_seed(2))
    assert (noisy < least).float().mean() > 0.1
    model, errors, scores = load_model("kbnet_xs.raw"), [], []
    for planes in (noisy, noisy.clamp_min(least)):
        image = Image(planes, Transfer.LINEAR, Layout.BAYER)
        pixels = restore_image(image, model, options)[0].pixels
        errors.append(float((pixels - clean).mean()))
        scores.append(psnr(process(pixels, camera), process(clean, camera)))
    brighter = float((noisy.clamp_min(least) - noisy).mean())
    assert abs(errors[1] - errors[0]) < 0.4 * brighter
    assert scores[1] > scores[0] - 1.5


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
