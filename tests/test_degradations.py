import torch

from restorekit.degradations import gaussian_noise, shot_read_noise


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
