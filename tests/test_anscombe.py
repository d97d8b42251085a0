import pytest
import torch

from restorekit.ops.anscombe import (
    Stabiliser,
    anscombe,
    anscombe_inverse_unbiased,
    anscombe_of_mean,
)

PROFILES = ((1e-3, 5e-3), (4.3e-3, 2e-2), (1e-2, 5e-2), (2.3e-2, 8e-2))


@pytest.mark.parametrize(("shot", "read"), PROFILES)
def test_anscombe_stabilises_and_its_inverse_is_unbiased(shot, read, generator):
    signal = torch.tensor([0.0, 0.005, 0.02, 0.1, 0.5, 1.0], dtype=torch.float64)
    counts = torch.poisson((signal / shot).expand(400_000, -1), generator=generator)
    noise = torch.randn(counts.shape, generator=generator, dtype=torch.float64)
    stabilised = anscombe(counts * shot + read * noise, shot, read)
    restored = anscombe_inverse_unbiased(stabilised.mean(0), shot, read)
    squared = shot * (stabilised.mean(0) ** 2 / 4 - 0.375) - read**2 / shot
    error = 4 * (shot * signal + read**2).sqrt() / 400_000**0.5 + 2e-4
    assert ((stabilised.std(0) - 1).abs() < 0.04).all()
    assert ((restored - signal).abs() < error).all()
    assert (squared < restored - 0.2 * shot).all()


def test_anscombe_needs_shot_noise():
    with pytest.raises(ValueError, match="above 0"):
        anscombe(torch.ones(3), 0.0, 0.1)
    with pytest.raises(ValueError, match="above 0"):
        anscombe_inverse_unbiased(torch.ones(3), 0.0, 0.1)


@pytest.mark.parametrize(("shot", "read"), [*PROFILES, (1e-5, 1e-4), (1e-2, 1e-4), (1e-4, 3e-2)])
def test_the_mean_of_a_signal_is_what_the_inverse_gives_back(shot: float, read: float) -> None:
    signal = torch.tensor([0.0, 1e-4, 1e-3, 0.02, 0.3, 1.0])
    found = anscombe_inverse_unbiased(anscombe_of_mean(signal, shot, read), shot, read)
    assert (found - signal).abs().max() < 1e-6 + 1e-3 * shot


@pytest.mark.parametrize(("shot", "read"), PROFILES)
def test_a_stabiliser_has_one_deviation_for_all_levels(
    shot: float, read: float, generator: torch.Generator
) -> None:
    stabiliser = Stabiliser(shot, read)
    clean = torch.linspace(0.1, 1, 5).expand(100_000, -1)
    noise = torch.randn(clean.shape, generator=generator) * (shot * clean + read**2).sqrt()
    encoded = stabiliser.encode(clean + noise)
    assert encoded.std(0) == pytest.approx([stabiliser.std] * 5, rel=0.05)
    assert stabiliser.decode(stabiliser.encode_mean(clean)) == pytest.approx(clean, abs=1e-5)
    mean = stabiliser.encode_mean(clean[0])
    assert encoded.mean(0) == pytest.approx(mean, abs=0.05 * stabiliser.std)
    assert stabiliser.encode(torch.tensor([0.0, 1.0])) == pytest.approx([0, 1], abs=1e-6)
