import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.ops.deconvolution import (
    close_seam,
    convolve_periodic,
    fast_length,
    pull,
    pull_seen,
    transfer_function,
    wiener,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shift_and_add(picture: Tensor, psf: Tensor) -> Tensor:
    """Return the picture moved to every pixel of a point spread function, weighed and summed."""
    rows, columns = psf.shape
    moved = [
        float(psf[y, x]) * picture.roll((y - rows // 2, x - columns // 2), (-2, -1))
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack(moved).sum(0)


@pytest.mark.parametrize("size", [(12, 20), (15, 9)])
def test_a_transfer_function_spreads_every_pixel(size: tuple[int, int]) -> None:
    picture, psf = draw(3, *size), draw(5, 3, seed=1)
    blurred = convolve_periodic(picture, transfer_function(psf, *size))
    torch.testing.assert_close(blurred, shift_and_add(picture, psf))


def test_the_wiener_filter_is_that_of_the_textbook() -> None:
    picture, psf = draw(16, 18), draw(3, 5, seed=1)
    canvas = np.zeros((16, 18))
    canvas[:3, :5] = psf.numpy()
    spectrum = np.fft.fft2(np.roll(canvas, (-1, -2), (0, 1)))
    inverse = spectrum.conj() / (np.abs(spectrum) ** 2 + 0.02)
    expected = np.fft.ifft2(np.fft.fft2(picture.numpy()) * inverse).real
    restored = wiener(picture, transfer_function(psf, 16, 18), 0.02)
    np.testing.assert_allclose(restored.numpy(), expected, atol=1e-12)


def test_a_blur_that_loses_nothing_is_undone() -> None:
    picture = draw(3, 24, 30)
    psf = torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]]).double()
    transfer = transfer_function(psf, 24, 30)
    blurred = shift_and_add(picture, psf)
    torch.testing.assert_close(wiener(blurred, transfer, 1e-14), picture, atol=1e-6, rtol=0)


def test_pull_is_the_minimum_of_its_sum() -> None:
    blurred, guess, psf = draw(14, 10), draw(14, 10, seed=2), draw(3, 3, seed=1)
    sharp = pull(blurred, guess, transfer_function(psf, 14, 10), 0.3).requires_grad_()
    miss = (shift_and_add(sharp, psf) - blurred).square().sum()
    (slope,) = torch.autograd.grad(miss + 0.3 * (sharp - guess).square().sum(), sharp)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-10, rtol=0)


def test_pull_seen_is_the_minimum_over_what_was_seen() -> None:
    observed, guess, psf = draw(14, 10), draw(14, 10, seed=2), draw(3, 3, seed=1) / 5
    transfer, nothing = transfer_function(psf, 14, 10), torch.full((14, 10), -9.0).double()
    seen = torch.ones(14, 10, dtype=torch.bool)
    whole = pull_seen(observed, seen, nothing, guess, transfer, 0.3, 1)
    torch.testing.assert_close(whole, pull(observed, guess, transfer, 0.3))
    seen[:, 7:] = False
    sharp = pull_seen(observed, seen, nothing, guess, transfer, 0.3, 200).requires_grad_()
    miss = (shift_and_add(sharp, psf) - observed)[seen].square().sum()
    (slope,) = torch.autograd.grad(miss + 0.3 * (sharp - guess).square().sum(), sharp)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-8, rtol=0)


def test_a_heavy_guess_stays() -> None:
    blurred, guess, psf = draw(14, 10), draw(14, 10, seed=2), draw(3, 3, seed=1)
    sharp = pull(blurred, guess, transfer_function(psf, 14, 10), 1e9)
    torch.testing.assert_close(sharp, guess, atol=1e-6, rtol=0)


def test_a_seam_closes_a_ramp_without_a_step() -> None:
    ramp = torch.linspace(0, 1, 40).expand(2, 30, 40)
    closed = close_seam(ramp, 50, 60)
    assert closed.shape == (2, 50, 60)
    assert torch.equal(closed[:, :30, :40], ramp)
    steps = (closed - closed.roll(1, -1)).abs()
    assert float(steps.max()) < 0.12
    vertical = close_seam(ramp.mT, 60, 50)
    assert torch.equal(vertical, closed.mT)


def test_a_seam_may_be_wider_than_the_picture() -> None:
    closed = close_seam(draw(1, 1, 3), 4, 16)
    assert closed.shape == (1, 4, 16)
    assert float(closed.min()) >= 0
    assert float(closed.max()) <= 1
    assert torch.equal(close_seam(draw(3, 5), 3, 5), draw(3, 5))


def test_fast_lengths_have_small_factors() -> None:
    fast = sorted({2**a * 3**b * 5**c for a in range(8) for b in range(5) for c in range(4)})
    for length in range(1, 120):
        assert fast_length(length) == next(number for number in fast if number >= length)
