import math

import torch

from restorekit.degradations import (
    gaussian_noise,
    sample_noise_levels,
    sample_sensor_noise_levels,
    shot_read_noise,
)


def test_gaussian_noise_has_its_deviation(generator: torch.Generator) -> None:
    noise = gaussian_noise(torch.zeros(1, 512, 512), 0.1, generator)
    assert abs(float(noise.std()) - 0.1) < 5e-4
    assert abs(float(noise.mean())) < 5e-4


def test_gaussian_noise_takes_a_map_and_repeats(generator: torch.Generator) -> None:
    std = torch.tensor([0.0, 0.2]).view(2, 1, 1, 1)
    clean = torch.full((2, 3, 64, 64), 0.5)
    noisy = gaussian_noise(clean, std, generator)
    assert torch.equal(noisy[0], clean[0])
    again = gaussian_noise(clean, std, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


def test_shot_and_read_noise_have_their_variance(generator: torch.Generator) -> None:
    shot, read = 1e-2, 5e-2
    for signal in (0.0, 0.1, 0.8):
        noisy = shot_read_noise(torch.full((1, 512, 512), signal), shot, read, generator)
        expected = shot * signal + read**2
        assert abs(float(noisy.var()) / expected - 1) < 0.02
        assert abs(float(noisy.mean()) - signal) < 2e-3


def test_every_picture_of_a_batch_has_its_own_levels(generator: torch.Generator) -> None:
    clean = torch.full((3, 1, 256, 256), 0.5)
    shot, read = sample_noise_levels(clean.shape[:-3], generator)
    noisy = shot_read_noise(clean, shot, read, generator)
    expected = (shot * 0.5 + read**2).flatten()
    torch.testing.assert_close(noisy.var((1, 2, 3)), expected, rtol=0.03, atol=0)


def test_noise_levels_are_log_uniform_over_their_ranges(generator: torch.Generator) -> None:
    for levels, low, high in zip(
        sample_noise_levels((20000,), generator), (-4, -3), (-2, -1.5), strict=True
    ):
        exponents = levels.log10().flatten()
        assert low <= float(exponents.min()) < low + 0.01
        assert high - 0.01 < float(exponents.max()) <= high + 1e-6
        quarter = float(exponents.quantile(0.25))
        assert abs(quarter - (low + (high - low) / 4)) < 0.03


def test_sensor_noise_levels_follow_their_line(generator: torch.Generator) -> None:
    shot, read = (level.flatten() for level in sample_sensor_noise_levels((20000,), generator))
    assert float(shot.min()) >= 1e-4 * 0.999
    assert float(shot.max()) <= 0.012 * 1.001
    above = (read**2).log() - (2.18 * shot.log() + 1.2)
    assert abs(float(above.mean())) < 0.01
    assert abs(float(above.std()) - 0.26) < 0.01
    middle = math.exp(2.18 * math.log(1e-3) + 1.2)
    near = read[(shot > 0.9e-3) & (shot < 1.1e-3)]
    assert abs(float((near**2).log().mean().exp()) / middle - 1) < 0.1


def test_one_picture_has_levels_without_a_batch(generator: torch.Generator) -> None:
    for sample in (sample_noise_levels, sample_sensor_noise_levels):
        shot, read = sample((), generator)
        assert shot.shape == read.shape == (1, 1, 1)
