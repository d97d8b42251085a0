from dataclasses import replace

import pytest
import torch

from restorekit.engine.domain import enter, measure_noise
from restorekit.errors import UsageError
from restorekit.hub import ModelCard
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.models.registry import ModelSpec, NoiseInput
from restorekit.ops.color import srgb_to_linear
from restorekit.ops.noise_curve import NoiseCurve

COLOUR = ModelCard(
    name="test.colour",
    architecture="test",
    config={},
    task="denoise",
    transfer="srgb",
    layout="rgb",
)
GRAY = replace(COLOUR, name="test.gray", layout="gray")
PACKED = replace(COLOUR, name="test.bayer", layout="bayer")
BLIND = ModelSpec(in_channels=3, out_channels=3, multiple_of=1, overlap=0)
TOLD = replace(BLIND, noise_input=NoiseInput.STD_MAP)
PROFILE = NoiseProfile(shot=2e-3, read=3e-3)


def picture(layout: Layout, transfer: Transfer = Transfer.SRGB, side: int = 24) -> Image:
    planes = {Layout.RGB: 3, Layout.GRAY: 1, Layout.BAYER: 4}[layout]
    pixels = torch.rand(planes, side, side, generator=torch.Generator().manual_seed(1))
    return Image(pixels, transfer, layout)


def mosaic(levels: tuple[float, ...], side: int, profile: NoiseProfile) -> Image:
    """Return flat planes with Poisson photons and Gaussian read noise."""
    generator = torch.Generator().manual_seed(2)
    clean = torch.tensor(levels).view(-1, 1, 1).expand(-1, side, side)
    photons = torch.poisson(clean / profile.shot, generator=generator) * profile.shot
    read = profile.read * torch.randn(photons.shape, generator=generator)
    return Image(photons + read, Transfer.LINEAR, Layout.BAYER)


@pytest.mark.parametrize(
    ("image", "card"),
    [
        (picture(Layout.RGB), COLOUR),
        (picture(Layout.RGB), GRAY),
        (picture(Layout.RGB, Transfer.LINEAR), COLOUR),
        (picture(Layout.RGB), replace(COLOUR, transfer="linear")),
        (picture(Layout.GRAY), COLOUR),
        (picture(Layout.GRAY), GRAY),
        (mosaic((0.0, 0.01, 0.2, 0.9), 24, PROFILE), COLOUR),
        (mosaic((0.0, 0.01, 0.2, 0.9), 24, PROFILE), GRAY),
        (mosaic((0.0, 0.01, 0.2, 0.9), 24, PROFILE), PACKED),
    ],
)
def test_a_network_that_changes_nothing_gives_the_picture_back(
    image: Image, card: ModelCard
) -> None:
    noise = PROFILE if image.layout is Layout.BAYER else 5.0
    domain = enter(image, card, noise)
    pixels = domain.leave([domain.values[list(planes)] for planes in domain.passes])
    assert torch.equal(pixels, image.pixels)


def test_a_colour_network_sees_a_mosaic_twice_and_red_and_blue_are_averaged() -> None:
    image = mosaic((0.1, 0.2, 0.3, 0.4), 8, PROFILE)
    domain = enter(image, COLOUR, PROFILE)
    assert domain.passes == ((0, 1, 3), (0, 2, 3))
    first, second = (domain.values[list(planes)] for planes in domain.passes)
    plain = domain.leave([first + 0.01, second + 0.01])
    split = domain.leave([first + 0.02, second])
    torch.testing.assert_close(split[0], plain[0])
    torch.testing.assert_close(split[3], plain[3])
    assert (split[1] > plain[1]).all()
    assert (split[2] < plain[2]).all()


def test_a_stabilised_mosaic_has_the_noise_that_the_network_is_told() -> None:
    image = mosaic((0.02, 0.1, 0.4, 0.8), 200, PROFILE)
    domain = enter(image, COLOUR, PROFILE)
    assert domain.noise_std is not None
    deviations = domain.values.flatten(1).std(1)
    torch.testing.assert_close(deviations, torch.full((4,), domain.noise_std), rtol=0.03, atol=0)
    black = enter(image.with_pixels(torch.zeros(4, 1, 1)), COLOUR, PROFILE).values
    white = enter(image.with_pixels(torch.ones(4, 1, 1)), COLOUR, PROFILE).values
    torch.testing.assert_close(black, torch.zeros(4, 1, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(white, torch.ones(4, 1, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "profile", [PROFILE, NoiseProfile(1e-2, 1e-2), NoiseProfile(1e-6, 4e-3), NoiseProfile(5e-4, 0)]
)
def test_denoising_keeps_the_mean_of_every_plane_at_low_signal(profile: NoiseProfile) -> None:
    levels = (0.02, 0.05, 0.1, 0.4)
    image = mosaic(levels, 400, profile)
    domain = enter(image, COLOUR, profile)
    smooth = domain.values.mean((1, 2), keepdim=True).expand(-1, 400, 400)
    pixels = domain.leave([smooth[list(planes)] for planes in domain.passes])
    means = pixels.mean((1, 2))
    torch.testing.assert_close(means, torch.tensor(levels), rtol=0.01, atol=profile.shot / 20)


def test_the_noise_of_a_mosaic_comes_from_the_user_then_the_file_then_the_picture() -> None:
    generator = torch.Generator().manual_seed(3)
    ramp = torch.linspace(0.01, 0.9, 320).expand(4, 320, 320)
    noisy = ramp + (PROFILE.shot * ramp + PROFILE.read**2).sqrt() * torch.randn(
        ramp.shape, generator=generator
    )
    image = Image(noisy, Transfer.LINEAR, Layout.BAYER)
    near = NoiseProfile(PROFILE.shot * 1.5, PROFILE.read)
    far = NoiseProfile(PROFILE.shot * 30, PROFILE.read)
    estimate = measure_noise(image, BLIND, None)
    assert isinstance(estimate, NoiseProfile)
    assert estimate.shot == pytest.approx(PROFILE.shot, rel=0.1)
    assert measure_noise(image, BLIND, far) == far
    for stated, expected in ((near, near), (far, estimate)):
        told = replace(image, metadata=Metadata(noise=stated))
        assert measure_noise(told, BLIND, None) == expected
    clipped = image.with_pixels((noisy - 0.3).clamp_min(0))
    assert measure_noise(replace(clipped, metadata=Metadata(noise=near)), BLIND, None) == near


def test_the_noise_of_a_finished_picture_is_measured_for_networks_that_are_told() -> None:
    generator = torch.Generator().manual_seed(4)
    noisy = 0.5 + 20 / 255 * torch.randn(3, 128, 128, generator=generator)
    image = Image(noisy, Transfer.SRGB, Layout.RGB)
    assert measure_noise(image, TOLD, None) == pytest.approx(20, rel=0.1)
    stated = measure_noise(image, TOLD, 7)
    assert isinstance(stated, float)
    assert stated == 7
    assert measure_noise(image, BLIND, None) is None
    assert enter(image, COLOUR, 51.0).noise_std == pytest.approx(0.2)


def noisy_light(layout: Layout) -> Image:
    """Return a ramp whose noise is far stronger in the shadows than in the lights."""
    planes = {Layout.RGB: 3, Layout.GRAY: 1}[layout]
    light = srgb_to_linear(torch.linspace(0.1, 0.9, 480).expand(planes, 320, -1))
    noise = torch.randn(light.shape, generator=torch.Generator().manual_seed(5))
    return Image(light + (1e-4 * light + 8e-3**2).sqrt() * noise, Transfer.LINEAR, layout)


@pytest.mark.parametrize("layout", [Layout.RGB, Layout.GRAY])
def test_a_network_is_told_the_noise_around_every_pixel(layout: Layout) -> None:
    image = noisy_light(layout)
    noise = measure_noise(image, TOLD, None)
    assert isinstance(noise, NoiseCurve)
    told = enter(image, COLOUR, noise).noise_std
    assert isinstance(told, torch.Tensor)
    assert told.shape == (1, 320, 480)
    clean = srgb_to_linear(torch.linspace(0.1, 0.9, 480))
    slope = (clean[2:] - clean[:-2]) / (2 * 0.8 / 479)
    expected = (1e-4 * clean + 8e-3**2).sqrt()[1:-1] / slope
    factor = 3**0.5 if layout is Layout.GRAY else 1.0
    torch.testing.assert_close(
        told[0, :, 80:-80].mean(0) / factor, expected[79:-79], rtol=0.2, atol=0
    )
    encoded = image.to_srgb()
    assert measure_noise(encoded, TOLD, None) == noise
    torch.testing.assert_close(enter(encoded, COLOUR, noise).noise_std, told)


def test_white_that_was_clipped_is_known_in_linear_light() -> None:
    level, generator = 1 - 10 / 255, torch.Generator().manual_seed(6)
    noisy = level + 20 / 255 * torch.randn(3, 96, 96, generator=generator)
    encoded = Image(noisy.clamp(0, 1), Transfer.SRGB, Layout.RGB)
    for image in encoded, encoded.to_linear():
        domain = enter(image, COLOUR, 20.0)
        mean = domain.values.mean((1, 2), keepdim=True).expand_as(domain.values)
        assert (mean < level - 3 / 255).all()
        (mended,) = domain.without_bias([mean])
        torch.testing.assert_close(mended.mean(), torch.tensor(level), rtol=0, atol=1e-3)


def test_noise_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="SHOT,READ"):
        measure_noise(picture(Layout.BAYER, Transfer.LINEAR), TOLD, 10.0)
    with pytest.raises(UsageError, match="one number"):
        measure_noise(picture(Layout.RGB), TOLD, PROFILE)
    with pytest.raises(UsageError, match="leave out --noise"):
        measure_noise(picture(Layout.RGB), BLIND, 10.0)


def test_a_four_plane_network_takes_no_colour_picture() -> None:
    with pytest.raises(UsageError, match=r"test\.bayer restores bayer pictures, not rgb"):
        enter(picture(Layout.RGB), PACKED, None)
