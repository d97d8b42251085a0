"""Known blurs, and their undoing."""

import importlib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from torch import Tensor

from restorekit.degradations import convolve, disk_psf, shake_psf
from restorekit.engine.deconvolve import deconvolve
from restorekit.engine.picture import RestoreOptions
from restorekit.engine.psf import read_psf
from restorekit.errors import DecodeError, NoInputError, UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.metrics import psnr
from restorekit.models.registry import NoiseInput
from restorekit.ops.color import linear_to_srgb, luma, srgb_to_linear
from restorekit.ops.deconvolution import close_seam, transfer_function, wiener
from restorekit.ops.orientation import stored
from tests.blend_model import BlendConfig, BlendModel, identity, loaded, picture

EXAMPLES = Path(__file__).parents[1] / "examples"
MARGIN = 16
CPU = RestoreOptions(device="cpu")


@pytest.fixture(scope="module")
def prior() -> LoadedModel:
    return load_model("kbnet_xs.gaussian")


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> Tensor:
    """Return a scene in linear light that reaches beyond the picture by MARGIN."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    light: Tensor = importlib.import_module("scene").day(160, 160, generator)
    return light[:, 40:, 20:140]


def inner(pixels: Tensor) -> Tensor:
    return pixels[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def photograph(light: Tensor, psf: Tensor, sigma: float, generator: torch.Generator) -> Image:
    encoded = linear_to_srgb(inner(convolve(light, psf)).clamp(0, 1))
    noisy = encoded + sigma / 255 * torch.randn(encoded.shape, generator=generator)
    layout = Layout.GRAY if len(encoded) == 1 else Layout.RGB
    return Image((noisy.clamp(0, 1) * 255).round() / 255, Transfer.SRGB, layout)


def best_wiener(image: Image, psf: Tensor, clean: Tensor) -> float:
    """Return what the Wiener filter gains at the ratio of noise to signal that suits it best."""
    rows, columns = image.height + len(psf), image.width + len(psf)
    seen = close_seam(srgb_to_linear(image.pixels), rows, columns)
    results = [
        wiener(seen, transfer_function(psf, rows, columns), ratio)[:, : image.height, : image.width]
        for ratio in (3e-3, 1e-2, 3e-2, 1e-1)
    ]
    return max(psnr(linear_to_srgb(result).clamp(0, 1), clean) for result in results)


@pytest.mark.parametrize("sigma", [1.0, 2.55])
def test_a_known_blur_is_undone_better_than_by_any_wiener_filter(
    prior: LoadedModel, light: Tensor, generator: torch.Generator, sigma: float
) -> None:
    clean = linear_to_srgb(inner(light))
    psf = shake_psf(torch.tensor(12.0), generator)
    image = photograph(light, psf, sigma, generator)
    restored, report = deconvolve(image, psf, prior, CPU)
    score = psnr(restored.pixels, clean)
    assert score > psnr(image.pixels, clean) + 4
    assert score > best_wiener(image, psf, clean) + 1.5
    assert report.noise == pytest.approx(max(sigma, 1.5), rel=0.2)


def test_grey_pictures_out_of_focus(
    prior: LoadedModel, light: Tensor, generator: torch.Generator
) -> None:
    light = luma(light)
    psf = disk_psf(torch.tensor(2.5))
    image = replace(photograph(light, psf, 1.0, generator), layout=Layout.GRAY)
    restored, _ = deconvolve(image, psf, prior, replace(CPU, noise=1.0))
    clean = linear_to_srgb(inner(light))
    assert psnr(restored.pixels, clean) > psnr(image.pixels, clean) + 2.5


def test_compressed_files_are_trusted_less() -> None:
    image, psf = picture(24, 24), disk_psf(torch.tensor(1.5))
    image = image.with_pixels(torch.full_like(image.pixels, 0.5))
    for name, stated, noise in (("a.png", None, 1.5), ("a.JPG", None, 3.0), ("a.JPG", 1.0, 1.0)):
        named = replace(image, metadata=Metadata(path=Path(name)))
        _, report = deconvolve(named, psf, identity(), replace(CPU, noise=stated))
        assert report.noise == noise


def test_a_crop_is_that_of_the_whole(
    prior: LoadedModel, light: Tensor, generator: torch.Generator
) -> None:
    psf = shake_psf(torch.tensor(8.0), generator)
    image = photograph(light, psf, 1.0, generator)
    whole, _ = deconvolve(image, psf, prior, CPU)
    part, _ = deconvolve(image, psf, prior, replace(CPU, crop=(24, 30, 40, 32)))
    assert part.pixels.shape == (3, 32, 40)
    expected = whole.crop(24, 30, 40, 32).pixels
    assert psnr(part.pixels, expected) > 32
    assert psnr(image.crop(24, 30, 40, 32).pixels, expected) < 26


def test_strength_mixes_the_blurred_with_the_sharp() -> None:
    image, psf = picture(20, 24), disk_psf(torch.tensor(1.5))
    whole, none, half = (
        deconvolve(image, psf, identity(), replace(CPU, noise=5.0, strength=strength))[0]
        for strength in (1.0, 0.0, 0.5)
    )
    assert torch.equal(none.pixels, image.pixels)
    torch.testing.assert_close(half.pixels, (whole.pixels + image.pixels) / 2)
    assert float((whole.pixels - image.pixels).abs().mean()) > 0.01


def test_a_point_as_psf_leaves_the_picture() -> None:
    image = picture(20, 24)
    point = torch.zeros(5, 3)
    point[2, 1] = 1
    restored, _ = deconvolve(image, point, identity(), replace(CPU, noise=5.0))
    torch.testing.assert_close(restored.pixels, image.pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_psf_is_turned_like_the_picture(tmp_path: Path, orientation: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.fromarray(grey).save(tmp_path / "psf.png", exif=exif)
    with PIL.Image.open(tmp_path / "psf.png") as file:
        upright = np.asarray(PIL.ImageOps.exif_transpose(file)).astype(np.float32)
    psf = read_psf(tmp_path / "psf.png")
    np.testing.assert_allclose(psf.numpy(), upright / upright.sum(), rtol=1e-6)
    np.testing.assert_allclose(
        stored(psf, orientation).numpy(), grey.astype(np.float32) / grey.sum(), rtol=1e-5
    )


def test_a_turned_picture_is_sharpened_in_its_own_direction() -> None:
    upright = picture(24, 20)
    psf = disk_psf(torch.tensor(1.5)) * torch.linspace(0, 1, 3)
    psf = psf / psf.sum()
    turned = upright.with_pixels(upright.pixels.mT.flip(-2))
    turned = replace(turned, metadata=Metadata(orientation=6))
    options = replace(CPU, noise=5.0)
    expected, _ = deconvolve(upright, psf, identity(), options)
    result, _ = deconvolve(turned, psf, identity(), options)
    torch.testing.assert_close(result.pixels, expected.pixels.mT.flip(-2), atol=1e-4, rtol=0)


def test_even_sides_of_a_psf_grow_at_their_end(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[2, 3] = 200
    pixels[0, 0] = 50
    iio.imwrite(tmp_path / "psf.png", pixels)
    psf = read_psf(tmp_path / "psf.png")
    assert psf.shape == (5, 7)
    assert float(psf[2, 3]) == pytest.approx(0.8)
    assert float(psf[0, 0]) == pytest.approx(0.2)


def test_files_that_are_no_psf(tmp_path: Path) -> None:
    path = tmp_path / "psf.png"
    for value in (0, 9):
        iio.imwrite(path, np.full((5, 5), value, np.uint8))
        with pytest.raises(UsageError, match="all pixels here are alike"):
            read_psf(path)
    path.write_bytes(b"")
    with pytest.raises(DecodeError, match=r"psf\.png"):
        read_psf(path)
    with pytest.raises(NoInputError, match="none"):
        read_psf(tmp_path / "none.png")


def test_what_does_not_fit_is_refused() -> None:
    image, psf = picture(20, 24), disk_psf(torch.tensor(1.5))
    with pytest.raises(UsageError, match="a PSF of 3 x 25 pixels is larger than the picture"):
        deconvolve(image, torch.ones(25, 3) / 75, identity(), CPU)
    untold = BlendModel(BlendConfig())
    untold.spec = replace(untold.spec, noise_input=NoiseInput.NONE)
    with pytest.raises(UsageError, match="is no prior for a known blur"):
        deconvolve(image, psf, loaded(untold), CPU)
    with pytest.raises(UsageError, match="develop the RAW first"):
        deconvolve(picture(8, 8, Layout.BAYER), psf, identity(), CPU)
    broken = image.with_pixels(image.pixels.index_fill(2, torch.tensor([3]), torch.nan))
    with pytest.raises(DecodeError):
        deconvolve(broken, psf, identity(), CPU)
