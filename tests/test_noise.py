import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from restorekit.degradations import jpeg
from restorekit.ops.color import linear_to_srgb, pack_bayer, srgb_to_linear
from restorekit.ops.finished_noise import (
    finished_noise,
    noise_by_brightness,
)
from restorekit.ops.noise import estimate_noise_profile
from restorekit.ops.noise_curve import NoiseCurve, curve_of_light
from restorekit.ops.white_noise import estimate_noise_std

GAINS = ((5e-3, 1e-3), (2e-2, 4.3e-3), (5e-2, 1e-2), (8e-2, 2.3e-2))


def textured_planes(generator: torch.Generator) -> torch.Tensor:
    """Return four correlated planes with flat parts, edges and fine texture."""
    rows, columns = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    light = 0.05 + 0.6 * columns / 640 + 0.1 * torch.sin(rows / 40)
    light = light + 0.15 * ((rows // 60 + columns // 80) % 2)
    texture = 0.1 * torch.rand(480, 640, generator=generator) * ((rows // 120) % 2)
    gains = torch.tensor([0.6, 1.0, 1.0, 0.7]).view(4, 1, 1)
    return (light + texture).clamp(0, 1) * gains


def noisy(planes: torch.Tensor, shot: float, read: float, generator: torch.Generator):
    deviation = (shot * planes + read**2).sqrt()
    return planes + deviation * torch.randn(planes.shape, generator=generator)


def photograph(path: Path) -> torch.Tensor:
    with PIL.Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize(("read", "shot"), GAINS)
def test_profile_of_a_textured_scene(read, shot, generator):
    planes = noisy(textured_planes(generator), shot, read, generator)
    estimated_shot, estimated_read = estimate_noise_profile(planes)
    assert estimated_shot == pytest.approx(shot, rel=0.1)
    assert estimated_read == pytest.approx(read, rel=0.08)


@pytest.mark.parametrize(("read", "shot"), GAINS)
def test_profile_of_photographs(read, shot, generator, shared_data):
    shots, reads = [], []
    for path in sorted((shared_data / "train" / "hires").glob("*.jpg"))[3:136:17]:
        linear = srgb_to_linear(photograph(path))
        mosaics = [pack_bayer(linear[channel], "RGGB") for channel in range(3)]
        planes = torch.stack([mosaics[c][k] for c, k in ((0, 0), (1, 1), (1, 2), (2, 3))])
        estimate = estimate_noise_profile(noisy(planes, shot, read, generator))
        shots.append(estimate[0] / shot)
        reads.append(estimate[1] / read)
    assert np.median(shots) == pytest.approx(1, abs=0.1)
    assert np.median(reads) == pytest.approx(1, abs=0.05)
    assert max(shots) < 1.4


def test_profile_of_one_plane(generator):
    plane = noisy(textured_planes(generator)[1:2], 0.01, 0.02, generator)
    shot, read = estimate_noise_profile(plane)
    level = (0.01 * 0.3 + 0.02**2) ** 0.5
    assert (shot * 0.3 + read**2) ** 0.5 == pytest.approx(level, rel=0.1)


def test_profile_of_one_level_is_its_deviation(generator):
    planes = 0.2 + 0.03 * torch.randn(4, 200, 200, generator=generator)
    shot, read = estimate_noise_profile(planes)
    assert shot == 0
    assert read == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize("size", [(4, 1, 1), (4, 9, 30), (4, 12, 12), (1, 21, 33), (4, 64, 64)])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_profile_without_noise_is_zero(size, level):
    assert estimate_noise_profile(torch.full(size, level)) == (0.0, 0.0)


@pytest.mark.parametrize(("read", "shot"), GAINS)
def test_profile_of_clipped_planes_stays_of_the_right_size(read, shot, generator):
    planes = noisy(textured_planes(generator), shot, read, generator).clamp(0, 1)
    estimated_shot, estimated_read = estimate_noise_profile(planes)
    ratio = (estimated_shot * 0.3 + estimated_read**2) / (shot * 0.3 + read**2)
    assert 0.85 < ratio < 1.15


def test_profile_where_most_blocks_are_clipped_at_black(generator):
    planes = noisy(0.4 * textured_planes(generator), 0.02, 0.06, generator)
    for least in (-0.03, 0.0):
        shot, read = estimate_noise_profile(planes.clamp_min(least))
        for level in (0.05, 0.3):
            ratio = (shot * level + read**2) / (0.02 * level + 0.06**2)
            assert 0.9 < ratio < 1.1


def test_profile_does_not_depend_on_the_size_of_the_picture(generator):
    planes = noisy(textured_planes(generator).repeat(1, 6, 4), 0.01, 0.02, generator)
    shot, read = estimate_noise_profile(planes)
    assert shot == pytest.approx(0.01, rel=0.1)
    assert read == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("sigma", [5, 15, 25, 50, 75])
def test_std_of_color_photographs(sigma, generator, shared_data):
    estimates = []
    for path in sorted((shared_data / "test" / "cbsd68").glob("*.png"))[::6]:
        clean = photograph(path)
        noise = torch.randn(clean.shape, generator=generator) * sigma / 255
        estimates.append(estimate_noise_std(clean + noise) * 255)
    assert np.mean(estimates) == pytest.approx(sigma, rel=0.03)
    assert max(abs(np.array(estimates) - sigma)) < 0.07 * sigma


@pytest.mark.parametrize("sigma", [5, 15, 25, 50, 75])
def test_std_of_grey_photographs(sigma, generator, shared_data):
    estimates = []
    for path in sorted((shared_data / "test" / "bsd68").glob("*.png"))[::6]:
        clean = photograph(path)[:1]
        noise = torch.randn(clean.shape, generator=generator) * sigma / 255
        estimates.append(estimate_noise_std(clean + noise) * 255)
    assert np.median(estimates) == pytest.approx(sigma, rel=0.05)
    assert np.mean(estimates) < 1.2 * sigma


def test_std_of_clean_photographs_is_small(shared_data):
    paths = sorted((shared_data / "test" / "cbsd68").glob("*.png"))[::6]
    estimates = [estimate_noise_std(photograph(path)) * 255 for path in paths]
    assert np.median(estimates) < 1
    assert max(estimates) < 8


def test_std_survives_clipping(generator):
    clean = textured_planes(generator)[[0, 1, 3]]
    noise = torch.randn(clean.shape, generator=generator) * 50 / 255
    assert estimate_noise_std((clean + noise).clamp(0, 1)) == pytest.approx(50 / 255, rel=0.1)


@pytest.mark.parametrize("quality", [75, 92])
def test_std_of_a_noisy_jpeg_is_seen_in_green(quality, generator):
    clean = textured_planes(generator)[[0, 1, 3]]
    noise = torch.randn(clean.shape, generator=generator) * 20 / 255
    samples = ((clean + noise).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    PIL.Image.fromarray(samples).save(file, "JPEG", quality=quality)
    with PIL.Image.open(file) as picture:
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)
    assert 10 / 255 < estimate_noise_std(pixels) < 25 / 255


@pytest.mark.parametrize("size", [(3, 1, 1), (1, 2, 40), (3, 12, 12), (1, 30, 30), (3, 64, 64)])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_std_without_noise_is_zero(size, level):
    assert estimate_noise_std(torch.full(size, level)) == pytest.approx(0, abs=1e-6)


def test_std_of_a_tiny_picture(generator):
    pixels = 0.5 + 0.1 * torch.randn(3, 20, 20, generator=generator)
    assert estimate_noise_std(pixels) == pytest.approx(0.1, rel=0.2)


def smooth_scene(generator: torch.Generator) -> torch.Tensor:
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, (384, 512), mode="bicubic")[0]
    return (0.2 + 0.6 * scene).clamp(0, 1)


@pytest.mark.parametrize("sigma", [3, 10, 40])
def test_coarse_std_of_white_noise_is_its_deviation(sigma, generator):
    scene = smooth_scene(generator)
    noise = torch.randn(scene.shape, generator=generator) * sigma / 255
    assert finished_noise(scene + noise).coarse * 255 == pytest.approx(sigma, rel=0.05)


def test_coarse_std_of_smoothed_noise_is_larger_than_its_pixels_show(generator):
    scene = smooth_scene(generator)
    noise = torch.randn(1, *scene.shape, generator=generator) * 40 / 255
    noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    photo = jpeg((scene + noise[0]).clamp(0, 1), 85)
    assert estimate_noise_std(photo) < 1.5 / 255
    assert 0.7 * float(noise.std()) < finished_noise(photo).coarse < 3 * float(noise.std())


def test_letters_on_a_clipped_page_are_no_noise(generator):
    letters = (torch.rand(1, 40, 60, generator=generator) < 0.4).float()
    page = torch.ones(3, 200, 320)
    for row in range(4):
        page[:, 50 * row + 4 : 50 * row + 22, 10:310] = 1 - letters[:, :18, :].repeat(1, 1, 5)
    assert estimate_noise_std(page) == 0
    assert not finished_noise(page).from_camera


@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_noise_counts_where_most_of_a_picture_has_none(ground, generator):
    scene = smooth_scene(generator)
    noisy = (scene + torch.randn(scene.shape, generator=generator) * 15 / 255).clamp(0, 1)
    page = torch.full_like(scene, ground)
    height, width = scene.shape[1:]
    part = (..., slice(0, int(0.6 * height)), slice(0, int(0.6 * width)))
    page[part] = noisy[part]
    assert 255 * estimate_noise_std(page) == pytest.approx(15, rel=0.15)
    page[part] = scene[part]
    assert 255 * estimate_noise_std(page) < 1


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("ground", [0.0, 0.4, 1.0])
def test_a_bar_without_noise_hides_none(share, ground, generator):
    columns = torch.linspace(0.1, 0.9, 640).expand(3, 480, -1)
    noisy = columns + 10 / 255 * torch.randn(columns.shape, generator=generator)
    noisy[:, : int(share * 480)] = ground
    found = finished_noise((noisy.clamp(0, 1) * 255).round() / 255)
    assert 255 * found.fine == pytest.approx(10, rel=0.1)
    assert found.coarse == pytest.approx(found.fine, rel=0.05)
    assert not found.from_camera
    assert found.curve is None


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_noise_of_one_colour_counts(channel, generator):
    scene = smooth_scene(generator)
    scene[channel] += torch.randn(scene.shape[1:], generator=generator) * 24 / 255
    assert 255 * estimate_noise_std(scene) == pytest.approx(24 / 3**0.5, rel=0.1)


def test_shared_noise_is_told_from_that_of_each_colour(generator):
    scene = smooth_scene(generator)
    own = torch.randn(scene.shape, generator=generator) * 12 / 255
    assert not finished_noise((scene + own).clamp(0, 1)).from_camera
    assert finished_noise((scene + own[:1]).clamp(0, 1)).from_camera
    assert finished_noise(jpeg((scene + own).clamp(0, 1), 90)).from_camera
    grey = (scene[:1] + own[:1]).clamp(0, 1)
    assert not finished_noise(grey).from_camera
    assert not finished_noise(grey.expand(3, -1, -1)).from_camera


def test_smoothed_noise_is_told_from_white_noise(generator):
    scene = smooth_scene(generator)
    noise = torch.randn(1, *scene.shape, generator=generator) * 15 / 255
    smoothed = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    assert not finished_noise((scene + noise[0]).clamp(0, 1)).from_camera
    assert finished_noise((scene + smoothed[0]).clamp(0, 1)).from_camera
    assert not finished_noise(smoothed[0, :, :40, :40]).from_camera
    assert not finished_noise(torch.full((3, 200, 200), 0.5)).from_camera


@pytest.mark.parametrize("sigma", [2, 3, 5, 15, 50])
def test_white_noise_in_photographs_is_not_from_a_camera(sigma, generator, shared_data):
    for path in sorted((shared_data / "test" / "kodak24").glob("*.png"))[::5]:
        clean = photograph(path)
        noise = torch.randn(clean.shape, generator=generator) * sigma / 255
        noisy = ((clean + noise).clamp(0, 1) * 255).round() / 255
        assert not finished_noise(noisy).from_camera


def test_photographs_of_cameras_are_known_as_such(shared_data):
    for path in sorted((shared_data / "test" / "polyu" / "noisy").iterdir())[::12]:
        pixels = photograph(path)
        assert finished_noise(pixels).from_camera
        assert finished_noise(pixels[1:2]).from_camera


def test_a_curve_is_straight_between_its_points_and_level_beyond():
    curve = NoiseCurve((0.2, 0.4, 0.4, 0.8), (0.10, 0.04, 0.04, 0.02), overall=0.06)
    brightness = torch.tensor([[0.0, 0.2, 0.3], [0.4, 0.6, 1.0]])
    expected = torch.tensor([[0.10, 0.10, 0.07], [0.04, 0.03, 0.02]])
    torch.testing.assert_close(curve.at(brightness), expected)
    pixels = torch.tensor([0.1, 0.2, 0.6]).view(3, 1, 1).expand(3, 2, 20)
    torch.testing.assert_close(curve.around(pixels), torch.full((1, 2, 20), 0.07))


@pytest.mark.parametrize("colours", [1, 3])
def test_noise_of_light_is_told_by_brightness(colours, generator):
    columns = torch.linspace(0.1, 0.9, 640).expand(colours, 480, -1)
    clean = columns + 0.05 * torch.randn(colours, 480, 1, generator=generator)
    light = srgb_to_linear(clean)
    deviation = (2e-3 * light + 4e-3**2).sqrt()
    light = light + deviation * torch.randn(light.shape, generator=generator)
    curve = noise_by_brightness(linear_to_srgb(light))
    assert isinstance(curve, NoiseCurve)
    places = torch.linspace(0.1, 0.9, 9)
    expected = curve_of_light(2e-3, 4e-3, 0.0, (-1.0, 2.0))
    torch.testing.assert_close(curve.at(places), expected.at(places), rtol=0.1, atol=0)
    assert curve.clean is not None


def test_noise_that_grows_with_brightness_is_not_of_light(generator):
    columns = torch.linspace(0.1, 0.9, 640).expand(3, 480, -1)
    deviation = 0.01 + 0.05 * columns
    curve = noise_by_brightness(
        columns + deviation * torch.randn(columns.shape, generator=generator)
    )
    assert isinstance(curve, NoiseCurve)
    assert curve.clean is None
    places = torch.tensor(curve.brightness)
    torch.testing.assert_close(curve.at(places), 0.01 + 0.05 * places, rtol=0.1, atol=0)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 2.0)])
def test_the_mean_of_noise_of_light_leads_back(ends, generator):
    clean = torch.linspace(0, 1, 40).view(1, 40, 1).repeat_interleave(16, 1)
    light = srgb_to_linear(clean)
    noise = torch.randn(1, 640, 6000, generator=generator)
    noisy = linear_to_srgb((light + (0.02 * light + 0.02**2).sqrt() * noise).clamp(*ends))
    parts = noisy.view(40, 16 * 6000)
    curve = curve_of_light(0.02, 0.02, 0.1, ends)
    torch.testing.assert_close(curve.at(parts.mean(1)), parts.std(1), rtol=0.02, atol=1e-3)
    mean = parts.mean(1).view(1, 40, 1).repeat_interleave(16, 1).expand(-1, -1, 8)
    assert (mean - clean).abs().max() > 0.02
    mended = curve.without_bias(mean, noisy[..., :8])
    torch.testing.assert_close(
        mended[:, 8::16], clean[:, 8::16].expand(-1, -1, 8), rtol=0, atol=4e-3
    )
    left_alone = noisy[..., :8]
    assert torch.equal(curve.without_bias(left_alone, left_alone), left_alone)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("sigma", [0, 4, 25, 75])
def test_noise_of_one_strength_has_no_curve(colours, sigma, generator):
    columns = torch.linspace(0.0, 1.0, 640).expand(colours, 480, -1)
    noisy = columns + sigma / 255 * torch.randn(columns.shape, generator=generator)
    deviation = noise_by_brightness((noisy.clamp(0, 1) * 255).round() / 255)
    assert isinstance(deviation, float)
    assert 255 * deviation == pytest.approx(sigma, rel=0.1, abs=0.5)
