import pytest
import torch

from restorekit.ops.clipping import before_clipping, unclipped


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_the_mean_of_clipped_noise_leads_back(deviation: float, generator: torch.Generator) -> None:
    levels = torch.linspace(0, 1, 41).view(1, -1, 1).repeat_interleave(16, 1)
    noise = deviation * torch.randn(1, levels.shape[1], 4000, generator=generator)
    noisy = (levels + noise).clamp(0, 1)
    means = noisy.unfold(1, 16, 16).mean((2, 3), keepdim=True).squeeze(-1)
    means = means.repeat_interleave(16, 1)
    restored = means.expand_as(noisy)
    mended = unclipped(restored, noisy, deviation)[..., :1]
    far = ((levels > 4 * deviation) & (levels < 1 - 4 * deviation)).expand_as(means)
    assert torch.equal(mended[far], means[far])
    torch.testing.assert_close(mended, levels, rtol=0, atol=0.03 * deviation)
    assert (means - levels).abs().max() > 0.35 * deviation


def test_moments_of_clipped_noise_lead_back(generator: torch.Generator) -> None:
    places, deviation = torch.tensor([0.0, 0.02, 0.1, 0.3, 0.9]), 0.1
    noise = deviation * torch.randn(5, 400_000, generator=generator)
    left = (places[:, None] + noise).clamp_min(0)
    means, variances = before_clipping(left.mean(1), left.var(1))
    torch.testing.assert_close(means.float(), places, rtol=0, atol=2e-3)
    torch.testing.assert_close(variances.float().sqrt(), torch.full((5,), 0.1), rtol=0.01, atol=0)


def test_a_map_tells_each_place_its_noise(generator: torch.Generator) -> None:
    deviation = torch.tensor([0.02, 0.1]).repeat_interleave(200).expand(1, 300, -1)
    noisy = (deviation * torch.randn(3, 300, 400, generator=generator)).clamp(0, 1)
    restored = 0.3989 * deviation.expand(3, -1, -1)
    assert unclipped(restored, noisy, deviation).abs().max() < 1e-4


def test_a_stray_value_beyond_the_end_changes_nothing_else(generator: torch.Generator) -> None:
    noisy = (0.1 * torch.randn(1, 60, 60, generator=generator)).clamp(0, 1)
    restored = torch.full_like(noisy, 0.0399)
    noisy[:, 30, 30] = -0.5
    assert unclipped(restored, noisy, 0.1).abs().max() < 1e-3


def test_what_was_not_clipped_stays(generator: torch.Generator) -> None:
    noise = 0.1 * torch.randn(3, 40, 41, generator=generator)
    restored = torch.full_like(noise, 0.05)
    assert torch.equal(unclipped(restored, noise, 0.1), restored)
    assert torch.equal(unclipped(restored, noise.abs() + 0.01, 0.1), restored)
    noisy = noise.clamp(0, 1)
    assert torch.equal(unclipped(noisy, noisy, 0.1), noisy)
    noisy[..., 20:] = 0.3
    mended = unclipped(restored, noisy, 0.1)
    assert torch.equal(mended[..., 33:], restored[..., 33:])
    assert (mended[..., :20] < 0.03).all()
