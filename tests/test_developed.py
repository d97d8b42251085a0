"""Noisy and RAW pictures of tasks that restore developed ones without noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from restorekit import io
from restorekit.degradations import disk_psf
from restorekit.engine.developed import restore_developed, shown_noise
from restorekit.engine.picture import restore_image
from restorekit.engine.reporter import SilentReporter
from restorekit.engine.restore import (
    FileRecord,
    Job,
    OutputOptions,
    RestoreOptions,
    RestoreReport,
    restore_files,
)
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.io import raw
from restorekit.ops.color import linear_to_srgb
from restorekit.tasks import TASKS
from tests.blend_model import BlendConfig, BlendModel, loaded
from tests.mosaic import scene, write_mosaic
from tests.toy import save_toy

CPU = RestoreOptions(device="cpu")


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    return write_mosaic(tmp_path / "noisy.dng", scene(64, 80))


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[:64, :80]
    light = 0.35 + 0.2 * np.sin(rows / 9) + 0.2 * np.cos(columns / 13)
    mosaic = (256 + light * 3839).round().astype(np.uint16)
    return write_mosaic(tmp_path / "quiet.dng", mosaic)


def run(source: Path, task: str, **options: Any) -> tuple[FileRecord, torch.Tensor]:
    target = source.with_name(f"{source.stem}_{task}.tif")
    (record,) = restore_files(
        [Job(source, target)],
        TASKS[task],
        replace(CPU, **options),
        OutputOptions(on_exist="overwrite"),
        SilentReporter(),
    )
    assert record.status == "ok", record.error
    return record, io.read_image(target).pixels


def darkening() -> LoadedModel:
    """Return a network that halves every pixel by itself."""
    model = BlendModel(BlendConfig(gain=-0.5))
    nn.init.dirac_(model.mean.weight, groups=3)
    return loaded(model)


def untouched(image: Image, options: RestoreOptions) -> tuple[Image, RestoreReport]:
    if options.crop is not None:
        image = image.crop(*options.crop)
    return image, RestoreReport("cpu", "float32", 64, ("slow",), None, 1.0)


def test_a_noisy_mosaic_is_denoised_before_it_is_developed(noisy: Path, tmp_path: Path) -> None:
    model = str(save_toy(tmp_path / "model", task="derain"))
    record, pixels = run(noisy, "derain", model=model)
    assert (record.model, record.denoised_by) == ("toy.test", "kbnet_xs.raw")
    denoised, report = restore_image(io.read_image(noisy), load_model("kbnet_xs.raw"), CPU)
    assert isinstance(report.noise, NoiseProfile)
    assert record.noise == (report.noise.shot, report.noise.read)
    torch.testing.assert_close(pixels, raw.develop(denoised).pixels, atol=1e-4, rtol=0)
    plain = raw.develop(io.read_image(noisy)).pixels
    assert float((pixels - plain).square().mean().sqrt()) > 0.005


def test_noise_is_left_where_asked_or_where_there_is_none(
    noisy: Path, quiet: Path, tmp_path: Path
) -> None:
    model = str(save_toy(tmp_path / "model", task="deblur"))
    for source, options in ((noisy, {"denoise": False}), (quiet, {})):
        record, pixels = run(source, "deblur", model=model, **options)
        assert (record.denoised_by, record.noise) == (None, None)
        plain = source.with_suffix(".tif")
        io.write_image(io.read_image(source), plain)
        assert torch.equal(pixels, io.read_image(plain).pixels)


def test_a_known_blur_of_a_raw_picture(quiet: Path, tmp_path: Path) -> None:
    psf = disk_psf(torch.tensor(1.5))
    weights = (psf / psf.amax() * 65535).round().expand(3, -1, -1) / 65535
    path = tmp_path / "psf.tif"
    io.write_image(Image(weights, Transfer.SRGB, Layout.RGB, Metadata(bit_depth=16)), path)
    record, pixels = run(quiet, "deblur", psf=path)
    assert (record.model, record.psf) == ("kbnet_xs.gaussian", str(path))
    assert isinstance(record.noise, float)
    assert pixels.shape == (3, 64, 80)


def test_the_reports_of_both_networks_are_joined(noisy: Path) -> None:
    mosaic, reporter = io.read_image(noisy), SilentReporter()
    _, report = restore_developed(mosaic, darkening(), untouched, CPU, reporter)
    assert report.denoised_by == "blend.test"
    assert isinstance(report.noise, NoiseProfile)
    assert report.fallbacks == ("slow",)
    assert report.seconds_model > 1
    _, report = restore_developed(mosaic, None, untouched, CPU, reporter)
    assert report == untouched(mosaic, CPU)[1]


def test_strength_mixes_the_plain_development_with_the_result(noisy: Path) -> None:
    mosaic, denoiser = io.read_image(noisy), darkening()
    whole, none, half = (
        restore_developed(
            mosaic, denoiser, untouched, replace(CPU, strength=strength), SilentReporter()
        )[0].pixels
        for strength in (1.0, 0.0, 0.5)
    )
    assert torch.equal(none, raw.develop(mosaic).pixels)
    assert float((whole - none).abs().mean()) > 0.05
    torch.testing.assert_close(half, (whole + none) / 2)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_crop_is_that_of_the_whole(noisy: Path, strength: float) -> None:
    mosaic, options = io.read_image(noisy), replace(CPU, strength=strength)
    whole, part = (
        restore_developed(mosaic, darkening(), untouched, chosen, SilentReporter())[0]
        for chosen in (options, replace(options, crop=(20, 10, 30, 24)))
    )
    expected = whole.crop(20, 10, 30, 24).pixels
    torch.testing.assert_close(part.pixels, expected, atol=1e-3, rtol=0)


def test_shown_noise_is_what_balanced_and_encoded_pixels_scatter(
    generator: torch.Generator,
) -> None:
    noise, gains = NoiseProfile(2e-4, 3e-3), (2.0, 1.0, 1.5)
    light = (0.05 + 0.4 * torch.rand(4, 200, 200, generator=generator)).contiguous()
    metadata = Metadata(white_balance=gains)
    mosaic = Image(light, Transfer.LINEAR, Layout.BAYER, metadata)
    scatter = (noise.shot * light + noise.read**2).sqrt() * torch.randn(
        light.shape, generator=generator
    )
    balance = torch.tensor((2.0, 1.0, 1.0, 1.5)).view(4, 1, 1)
    shown = linear_to_srgb((light + scatter) * balance) - linear_to_srgb(light * balance)
    assert shown_noise(mosaic, noise) == pytest.approx(255 * float(shown.std()), rel=0.05)


def finished(path: Path, sigma: float, size: tuple[int, int] = (160, 200)) -> Path:
    rows, columns = np.mgrid[: size[0], : size[1]]
    light = 0.45 + 0.2 * np.sin(rows / 9) + 0.2 * np.cos(columns / 13)
    pixels = torch.from_numpy(light).float().expand(3, -1, -1).clone()
    pixels += torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255
    io.write_image(Image(pixels.clamp(0, 1), Transfer.SRGB, Layout.RGB, Metadata()), path)
    return path


@pytest.mark.parametrize("task", ["deblur", "derain"])
def test_a_noisy_picture_is_denoised_first(task: str, tmp_path: Path) -> None:
    source = finished(tmp_path / "noisy.png", 12)
    record, restored = run(source, task)
    assert record.denoised_by == "kbnet_xs.gaussian"
    assert isinstance(record.noise, float)
    assert record.noise == pytest.approx(12, rel=0.2)
    left, _ = run(source, task, denoise=False)
    assert left.denoised_by is None
    before = io.read_image(source).pixels
    cropped, part = run(source, task, crop=(40, 30, 64, 48))
    assert cropped.denoised_by == "kbnet_xs.gaussian"
    assert part.shape == (3, 48, 64)
    _, none = run(source, task, strength=0.0)
    assert torch.equal(none, before)
    truth = io.read_image(finished(tmp_path / "truth.png", 0)).pixels
    assert (restored - truth).square().mean() < 0.2 * (before - truth).square().mean()


def test_a_picture_with_little_noise_is_not_denoised_first(tmp_path: Path) -> None:
    record, _ = run(finished(tmp_path / "quiet.png", 2), "deblur")
    assert record.denoised_by is None
