"""What the bundled network for finished photographs gains, and when it is chosen."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Generator

from restorekit import Image, load_model, read_image, restore_image, write_image
from restorekit.cli import main as entry
from restorekit.degradations import (
    gaussian_noise,
    mosaic,
    photographed,
    process,
    sample_camera,
    unprocess,
)
from restorekit.engine.burst import merge_burst
from restorekit.engine.picture import RestoreOptions
from restorekit.engine.quick_score import drawn_pictures
from restorekit.image import Layout, Transfer
from restorekit.metrics import psnr
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.gaussian import blurred
from tests.shaken import GAINS, finished, in_memory

NAME = "kbnet_xs.photo"
SIDE = 256


def test_noise_that_a_camera_left_is_removed(shared_data: Path) -> None:
    model, gains = load_model(NAME), []
    for number, path in enumerate(sorted((shared_data / "test" / "kodak24").iterdir())[:8]):
        clean = read_image(path).pixels[:, :SIDE, :SIDE]
        noisy, truth = photographed(clean, Generator().manual_seed(number))
        restored, _ = restore_image(Image(noisy, Transfer.SRGB, Layout.RGB), model)
        gains.append(psnr(restored.pixels.clamp(0, 1), truth) - psnr(noisy, truth))
    assert sum(gains) / len(gains) > 2.0


def test_real_photographs_gain(shared_data: Path) -> None:
    folder = shared_data / "test" / "polyu"
    model, gains = load_model(NAME), []
    for path in sorted((folder / "noisy").iterdir())[::16]:
        noisy, clean = read_image(path), read_image(folder / "clean" / path.name).pixels
        restored, _ = restore_image(noisy, model)
        gains.append(psnr(restored.pixels.clamp(0, 1), clean) - psnr(noisy.pixels, clean))
    assert sum(gains) / len(gains) > 1.2


def test_white_noise_of_light_is_told_by_brightness(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    truth = drawn_pictures(Generator().manual_seed(0))[0]
    light = srgb_to_linear(truth)
    noise = torch.randn(light.shape, generator=Generator().manual_seed(1))
    noisy = linear_to_srgb((light + (3e-4 * light + 1e-2**2).sqrt() * noise).clamp(0, 1))
    source = tmp_path / "a.png"
    write_image(Image(noisy, Transfer.SRGB, Layout.RGB), source)
    with pytest.raises(SystemExit):
        entry.main(["denoise", str(source), "--format", "ndjson"])
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "kbnet_xs.gaussian"
    even = RestoreOptions(noise=record["noise"])
    evenly, _ = restore_image(read_image(source), load_model("kbnet_xs.gaussian"), even)
    restored = read_image(Path(record["output"]))
    assert psnr(restored.pixels, truth) > psnr(evenly.pixels, truth) + 0.3


def test_noise_that_was_clipped_leaves_black_dark() -> None:
    truth = drawn_pictures(Generator().manual_seed(2))[0].sub(0.25).clamp_min(0)
    noise = torch.randn(truth.shape, generator=Generator().manual_seed(3)) * 25 / 255
    model, options = load_model("kbnet_xs.gaussian"), RestoreOptions(noise=25.0)
    results = []
    for noisy in (truth + noise, (truth + noise).clamp(0, 1)):
        image = Image(noisy, Transfer.SRGB, Layout.RGB)
        results.append(restore_image(image, model, options)[0].pixels)
    black = truth == 0
    assert black.float().mean() > 0.05
    assert results[1][black].mean() < 0.01
    whole, clipped = (psnr(result.clamp(0, 1), truth) for result in results)
    assert clipped > whole - 0.5


def test_a_burst_of_dark_noise_that_was_cut_off_beats_its_best_frame(shared_data: Path) -> None:
    model, gains = load_model(NAME), []
    for number, path in enumerate(sorted((shared_data / "test" / "kodak24").iterdir())[:3]):
        generator = Generator().manual_seed(number)
        camera = sample_camera((), generator)
        scene = unprocess(read_image(path).pixels, camera)
        views = [
            mosaic(scene[:, y : y + SIDE, x : x + SIDE])
            for x, y in torch.randint(40, 60, (6, 2), generator=generator).tolist()
        ]
        images = [finished(view, GAINS[1], camera, generator) for view in views]
        frames = in_memory(images, reference=0)
        merged, _ = merge_burst(frames, load_model("ame_kpn.burst8"), model)
        single, _ = restore_image(frames[0].load(), model)
        truth = process(views[0], camera)
        gains.append(psnr(merged.pixels, truth) - psnr(single.pixels, truth))
    assert sum(gains) / len(gains) > 1.1


def test_clean_photographs_stay_clean(shared_data: Path) -> None:
    model, scores = load_model(NAME), []
    for path in sorted((shared_data / "test" / "kodak24").iterdir())[:8]:
        clean = read_image(path)
        clean = clean.with_pixels(clean.pixels[:, :SIDE, :SIDE])
        restored, _ = restore_image(clean, model)
        scores.append(psnr(restored.pixels.clamp(0, 1), clean.pixels))
    assert sum(scores) / len(scores) > 45


@pytest.mark.parametrize(
    ("smoothing", "options", "chosen"),
    [
        (0, (), "kbnet_xs.gaussian"),
        (1.0, (), NAME),
        (1.0, ("--noise", "10"), "kbnet_xs.gaussian"),
    ],
)
def test_the_noise_chooses_the_network(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    smoothing: float,
    options: tuple[str, ...],
    chosen: str,
) -> None:
    ramp = torch.linspace(0.3, 0.7, 120).expand(3, 100, -1)
    noise = gaussian_noise(torch.zeros_like(ramp), 30 / 255, Generator().manual_seed(0))
    noisy = ramp + (blurred(noise, smoothing) if smoothing else noise)
    write_image(Image(noisy, Transfer.SRGB, Layout.RGB), tmp_path / "a.png")
    with pytest.raises(SystemExit):
        entry.main(["denoise", str(tmp_path / "a.png"), "--format", "ndjson", *options])
    assert json.loads(capsys.readouterr().out)["model"] == chosen


def test_a_picture_without_numbers_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = np.full((120, 140, 3), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "a.tif", empty, photometric="rgb")
    with pytest.raises(SystemExit) as stop:
        entry.main(["denoise", str(tmp_path / "a.tif")])
    assert stop.value.code == 65
    assert "repair them first" in capsys.readouterr().err
