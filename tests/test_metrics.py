import math

import torch
from skimage.metrics import peak_signal_noise_ratio

from restorekit.metrics import psnr


def test_psnr_agrees_with_scikit_image(generator: torch.Generator) -> None:
    clean = torch.rand(3, 40, 50, generator=generator)
    restored = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    expected = peak_signal_noise_ratio(clean.numpy(), restored.numpy(), data_range=1)
    assert abs(psnr(restored, clean) - expected) < 1e-4


def test_equal_pictures_are_infinitely_close() -> None:
    assert psnr(torch.ones(3, 2, 2), torch.ones(3, 2, 2)) == math.inf
