"""Separable Gaussian windows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from restorekit.ops.gaussian import gaussian_taps, separable_means


@pytest.mark.parametrize(("deviation", "radius"), [(1.5, 5), (0.5, 1), (2.0, 0)])
def test_means_are_those_of_a_convolution(deviation: float, radius: int) -> None:
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(3, 17, 12, generator=generator, dtype=torch.float64)
    taps = gaussian_taps(deviation, radius)
    weights = torch.tensor(taps, dtype=torch.float64)
    expected = functional.conv2d(planes[:, None], weights.outer(weights)[None, None])[:, 0]
    assert sum(taps) == pytest.approx(1)
    torch.testing.assert_close(separable_means(planes, taps), expected)
