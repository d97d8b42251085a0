import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restorekit.errors import UsageError
from restorekit.metrics import (
    PROTOCOLS,
    Protocol,
    compared,
    crop_border,
    luma_bt601,
    mae,
    measure,
    psnr,
    ssim,
)

MATLAB_Y = {
    (0, 0, 0): 16,
    (255, 255, 255): 235,
    (255, 0, 0): 81,
    (0, 255, 0): 145,
    (0, 0, 255): 41,
    (128, 128, 128): 126,
    (10, 200, 90): 128,
}


def pair(generator: torch.Generator, planes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.rand(planes, 40, 50, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    return (clean + 0.1 * noise).clamp(0, 1), clean


def pixel(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb).view(3, 1, 1)


def test_psnr_agrees_with_scikit_image(generator: torch.Generator) -> None:
    restored, clean = pair(generator)
    expected = peak_signal_noise_ratio(clean.numpy(), restored.numpy(), data_range=1)
    assert abs(psnr(restored, clean) - expected) < 1e-4


def test_equal_pictures_are_infinitely_close() -> None:
    assert psnr(torch.ones(3, 2, 2), torch.ones(3, 2, 2)) == math.inf


@pytest.mark.parametrize("planes", [1, 3])
def test_ssim_agrees_with_scikit_image(generator: torch.Generator, planes: int) -> None:
    restored, clean = pair(generator, planes)
    expected = structural_similarity(
        clean.numpy(),
        restored.numpy(),
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert abs(ssim(restored, clean) - expected) < 1e-4


def test_flat_pictures_have_known_scores() -> None:
    restored, clean = torch.full((3, 20, 20), 0.6), torch.full((3, 20, 20), 0.5)
    scores = measure(restored, clean, PROTOCOLS["dpdd"])
    assert scores.psnr == pytest.approx(20, abs=1e-5)
    assert scores.mae == pytest.approx(0.1)
    assert scores.ssim == pytest.approx((2 * 0.6 * 0.5 + 1e-4) / (0.36 + 0.25 + 1e-4))


def test_ssim_needs_a_whole_window() -> None:
    assert ssim(torch.ones(1, 11, 11), torch.ones(1, 11, 11)) == pytest.approx(1)
    with pytest.raises(UsageError, match="11 x 11"):
        ssim(torch.ones(1, 10, 30), torch.ones(1, 10, 30))


def test_mae_agrees_with_numpy(generator: torch.Generator) -> None:
    restored, clean = pair(generator)
    expected = np.abs(restored.numpy().astype(float) - clean.numpy().astype(float)).mean()
    assert mae(restored, clean) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rgb", "y"), MATLAB_Y.items())
def test_luma_has_the_integers_of_matlab(rgb: tuple[int, int, int], y: int) -> None:
    luma = luma_bt601(pixel(*rgb).to(torch.uint8))
    assert (luma.dtype, luma.item()) == (torch.uint8, y)


def test_luma_of_floats_is_not_rounded(generator: torch.Generator) -> None:
    rgb = torch.rand(3, 9, 8, generator=generator, dtype=torch.float64)
    expected = rgb2ycbcr(rgb.numpy(), channel_axis=0)[:1] / 255
    assert np.abs(luma_bt601(rgb).numpy() - expected).max() < 1e-6


def test_crop_border() -> None:
    picture = torch.arange(30).view(1, 5, 6)
    assert torch.equal(crop_border(picture, 2), picture[:, 2:3, 2:4])
    assert torch.equal(crop_border(picture, 0), picture)


def test_a_protocol_clamps_and_rounds() -> None:
    pixels = pixel(-0.2, 100.4 / 255, 1.3)
    rounded = compared(pixels, PROTOCOLS["gaussian-colour"]) * 255
    assert rounded.flatten().tolist() == pytest.approx([0, 100, 255])
    kept = compared(pixels, PROTOCOLS["dpdd"]) * 255
    assert kept.flatten().tolist() == pytest.approx([0, 100.4, 255], abs=1e-4)


def test_derain_compares_integers_of_luma() -> None:
    y = compared(pixel(10 / 255, 200 / 255, 90 / 255), PROTOCOLS["derain-y"])
    assert y.shape == (1, 1, 1)
    assert y.item() * 255 == pytest.approx(128)


def test_a_border_is_not_compared() -> None:
    protocol = Protocol("framed", "denoise", "pairs", "none", "rgb", border=2)
    clean = torch.full((3, 20, 20), 0.5)
    restored = clean.clone()
    restored[:, 0] = 1
    assert measure(restored, clean, protocol).psnr == math.inf
    assert "border 2" in protocol.summary()


def test_the_summary_of_a_protocol_names_what_it_fixes() -> None:
    summary = PROTOCOLS["gaussian-colour"].summary()
    for fact in ("RGB", "0-1", "border 0", "8 bits", "seed 0", "not clipped"):
        assert fact in summary
    assert "Y of BT.601 (16-235)" in PROTOCOLS["derain-y"].summary()
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
