import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from restorekit.degradations import mosaic, sample_camera, shot_read_noise, unprocess
from restorekit.degradations.burst import GAINS
from restorekit.ops.color import pack_bayer
from restorekit.ops.hot_pixels import repaired

PHASES = ("RGGB", "BGGR", "GRBG", "GBRG")
COLOURS = {"white": (0.5, 1.0, 0.6), "red": (1.0, 0.12, 0.05), "blue": (0.05, 0.2, 1.0)}


def noise(height: int, width: int, generator: torch.Generator) -> Tensor:
    clean = torch.tensor([0.06, 0.1, 0.1, 0.07]).view(4, 1, 1).expand(4, height, width)
    return shot_read_noise(clean, 1e-3, 2e-3, generator)


def starry_sky(fwhm: float, colour: str, cfa: str, generator: torch.Generator) -> Tensor:
    """Return planes with 300 points of light on a grid, each off it by part of a sample."""
    centres = 20.0 * torch.cartesian_prod(torch.arange(1.0, 16), torch.arange(1.0, 21))
    centres += torch.rand(300, 2, generator=generator)
    brightness = torch.rand(300, generator=generator) * 0.8
    rows, columns = (
        torch.exp(-4 * np.log(2) * ((torch.arange(size) - centres[:, axis : axis + 1]) / fwhm) ** 2)
        for axis, size in enumerate((320, 440))
    )
    light = torch.einsum("n,ny,nx->yx", brightness, rows, columns)
    red, green, blue = (pack_bayer(light * share + 0.01, cfa) for share in COLOURS[colour])
    return torch.stack((red[0], green[1], green[2], blue[3]))


@pytest.mark.parametrize("cfa", PHASES)
@pytest.mark.parametrize("value", [0.8, 0.5])
def test_hot_pixels_are_found_and_nothing_else(
    cfa: str, value: float, generator: torch.Generator
) -> None:
    sound = noise(300, 400, generator)
    places = torch.randperm(sound.numel(), generator=generator)[:480]
    faulty = sound.clone()
    faulty.view(-1)[places] = value
    result = repaired(faulty, cfa)
    changed = (result != faulty).view(-1)
    assert changed[places].float().mean() > 0.95
    assert changed.count_nonzero() == changed[places].count_nonzero()
    assert (result - sound).abs()[(result != faulty)].max() < 0.1


@pytest.mark.parametrize("value", [0.9, 0.0])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 9), (15, 19), (0, 19), (15, 3)])
def test_a_sample_becomes_the_median_of_its_colour(
    value: float, row: int, column: int, generator: torch.Generator
) -> None:
    planes = 0.4 + 0.002 * torch.randn(4, 16, 20, generator=generator)
    planes[2, row, column] = value
    rows, columns = (
        np.pad(np.arange(size), 1, mode="reflect")[place : place + 3]
        for place, size in ((row, 16), (column, 20))
    )
    around = np.delete(planes[2].numpy()[np.ix_(rows, columns)], 4)
    result = repaired(planes, "RGGB")
    assert result[2, row, column] == pytest.approx(float(np.median(around)))
    planes[2, row, column] = result[2, row, column]
    assert torch.equal(result, planes)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("cfa", PHASES)
def test_points_of_light_stay(
    cfa: str, fwhm: float, colour: str, generator: torch.Generator
) -> None:
    sky = starry_sky(fwhm, colour, cfa, generator)
    assert torch.equal(repaired(sky, cfa), sky)


def test_the_phase_tells_which_samples_lie_beside(generator: torch.Generator) -> None:
    sky = starry_sky(1.5, "red", "GBRG", generator)
    assert not torch.equal(repaired(sky, "RGGB"), sky)


@pytest.mark.parametrize("fwhm", [1.5, 2.0])
def test_points_of_light_stay_in_noise(fwhm: float, generator: torch.Generator) -> None:
    sky = shot_read_noise(starry_sky(fwhm, "white", "RGGB", generator), 1e-3, 2e-3, generator)
    assert torch.equal(repaired(sky, "RGGB"), sky)


@pytest.mark.parametrize(("read", "shot"), GAINS)
@pytest.mark.parametrize("known", [True, False])
def test_noise_stays(known: bool, read: float, shot: float, generator: torch.Generator) -> None:
    clean = torch.linspace(0, 1, 500).expand(4, 500, 500)
    planes = shot_read_noise(clean, shot, read, generator)
    assert torch.equal(repaired(planes, "RGGB", *((shot, read) if known else ())), planes)


def test_known_noise_tells_what_clipping_at_black_hides(generator: torch.Generator) -> None:
    planes = (0.003 * torch.randn(4, 400, 400, generator=generator) - 0.005).clamp_min(0)
    assert not torch.equal(repaired(planes, "RGGB"), planes)
    planes[1, 30, 40] = 0.1
    (place,) = (repaired(planes, "RGGB", read=0.003) != planes).nonzero().tolist()
    assert place == [1, 30, 40]


@pytest.mark.parametrize("noisy", [False, True])
def test_photographs_stay(shared_data, noisy: bool, generator: torch.Generator) -> None:
    changed = samples = 0
    for path in sorted((shared_data / "train" / "hires").glob("*.jpg"))[::16]:
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32)[:640, :960] / 255
        photograph = torch.from_numpy(pixels).permute(2, 0, 1)
        photograph = photograph[:, : len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
        planes = mosaic(unprocess(photograph, sample_camera((), generator)))
        if noisy:
            planes = shot_read_noise(planes, 1e-3, 5e-3, generator)
        changed += int((repaired(planes, "RGGB") != planes).sum())
        samples += planes.numel()
    assert changed < 1e-5 * samples


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (130, 1)])
def test_small_planes_are_taken(height: int, width: int, generator: torch.Generator) -> None:
    planes = torch.rand(4, height, width, generator=generator)
    assert torch.equal(repaired(planes, "BGGR"), planes)
