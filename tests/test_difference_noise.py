import pytest
import torch
from torch import Tensor

from restorekit.ops.difference_noise import noise_by_level, whitening
from tests.shaken import seeded


def correlated(mixing: Tensor, seed: int = 0) -> Tensor:
    """Return (C, 128, 160) normal noise that a matrix (C, C) makes of independent one."""
    noise = torch.randn(len(mixing), 128, 160, generator=seeded(seed))
    return torch.einsum("ij,jhw->ihw", mixing, noise)


def test_noise_is_told_at_each_brightness() -> None:
    picture = torch.linspace(0, 60, 160).expand(3, 128, 160)
    expected = (0.5 + picture / 20) * torch.tensor([1.0, 2.0, 0.7])[:, None, None]
    difference = expected * torch.randn(3, 128, 160, generator=seeded(1))
    difference[:, 30:60, 40:70] += 25
    found = noise_by_level(picture + difference, difference)
    assert float((found / expected).log().abs().median()) < 0.1
    assert float((found / expected).log().abs().quantile(0.95)) < 0.25


@pytest.mark.parametrize("colours", [1, 3, 4])
@pytest.mark.parametrize(("moved", "off"), [(0, 0.12), (20, 0.3), (50, 0.65)])
def test_whitened_noise_is_white(colours: int, moved: int, off: float) -> None:
    mixing = torch.eye(colours) + torch.rand(colours, colours, generator=seeded(2))
    values = correlated(mixing)
    values[:, :, :moved] += 12
    whitened = torch.einsum("ij,jhw->ihw", whitening(values.flatten(1), 1.0), values)
    still = whitened[:, :, moved:].flatten(1)
    covariance = still @ still.T / still.shape[1]
    torch.testing.assert_close(covariance, torch.eye(colours), atol=off, rtol=0)


@pytest.mark.parametrize(("deviation", "believed"), [(0.1, 0.5**0.5), (10.0, 20**0.5)])
def test_noise_far_from_what_was_expected_is_not_believed(
    deviation: float, believed: float
) -> None:
    values = correlated(deviation * torch.eye(3))
    whitened = torch.einsum("ij,jhw->ihw", whitening(values.flatten(1), 1.0), values)
    assert float(whitened.std()) == pytest.approx(deviation / believed, rel=0.05)
