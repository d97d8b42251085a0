"""Blur by a known point spread function, and its undoing, through the Fourier transform.

Pictures are periodic here: what leaves at one edge comes back at the other. A photograph gets a
seam of free pixels first (close_seam), wide enough that opposite edges do not meet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from restorekit.ops.mirror import mirrored


def transfer_function(psf: Tensor, height: int, width: int) -> Tensor:
    """Return the spectrum by which a point spread function multiplies that of a picture.

    Args:
        psf: (K, L) of odd sides, not larger than the picture, middle pixel at rest.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        (height, width // 2 + 1) complex.
    """
    rows, columns = psf.shape
    canvas = psf.new_zeros(height, width)
    canvas[:rows, :columns] = psf
    transfer: Tensor = torch.fft.rfft2(canvas.roll((-(rows // 2), -(columns // 2)), (0, 1)))
    return transfer


def convolve_periodic(sharp: Tensor, transfer: Tensor) -> Tensor:
    """Return pictures (..., H, W) blurred by a transfer function."""
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(sharp) * transfer, sharp.shape[-2:])
    return blurred


def wiener(blurred: Tensor, transfer: Tensor, noise_to_signal: float) -> Tensor:
    """Undo a blur by the Wiener filter, for noise and signal of one ratio at all frequencies.

    Args:
        blurred: (..., H, W) periodic, in linear light.
        transfer: from transfer_function.
        noise_to_signal: ratio of their powers, above 0.
    """
    return pull(blurred, torch.zeros_like(blurred), transfer, noise_to_signal)


def pull(blurred: Tensor, guess: Tensor, transfer: Tensor, weight: float) -> Tensor:
    """Return the picture that agrees with what was seen and stays near a guess.

    It minimises |blur(x) - blurred|^2 + weight * |x - guess|^2, the data step of half-quadratic
    splitting.

    Args:
        blurred: (..., H, W) periodic, in linear light.
        guess: (..., H, W).
        transfer: from transfer_function.
        weight: of the guess, above 0.
    """
    missing = torch.fft.rfft2(blurred) - torch.fft.rfft2(guess) * transfer
    step = transfer.conj() * missing / (transfer.abs().square() + weight)
    pulled: Tensor = guess + torch.fft.irfft2(step, blurred.shape[-2:])
    return pulled


def pull_seen(
    observed: Tensor,
    seen: Tensor,
    least: Tensor,
    guess: Tensor,
    transfer: Tensor,
    weight: float,
    rounds: int,
) -> Tensor:
    """Return the picture that agrees with the pixels that were seen and stays near a guess.

    In each round the others become what the last picture shows there, blurred, as expectation
    maximisation fills missing data (Dempster, Laird & Rubin, 1977), and it is pulled anew.

    Args:
        observed: (..., H, W) periodic, in linear light, where it was seen.
        seen: (..., H, W) where that is.
        least: (..., H, W) what is at least where it was not.
        guess: (..., H, W).
        transfer: from transfer_function.
        weight: of the guess, above 0.
        rounds: at least 1.
    """
    size = guess.shape[-2:]
    spectrum = guessed = torch.fft.rfft2(guess)
    gain = transfer.conj() / (transfer.abs().square() + weight)
    for _ in range(rounds):
        blurred = torch.fft.irfft2(spectrum * transfer, size).maximum(least)
        missing = torch.fft.rfft2(torch.where(seen, observed, blurred)) - guessed * transfer
        spectrum = guessed + gain * missing
    pulled: Tensor = torch.fft.irfft2(spectrum, size)
    return pulled


def close_seam(pixels: Tensor, height: int, width: int) -> Tensor:
    """Enlarge a picture to the right and below so that it goes on smoothly at its opposite edges.

    The seam passes from the mirrored end of each line to the mirrored beginning.

    Args:
        pixels: (..., H, W).
        height: rows of the result, at least H.
        width: columns of the result, at least W.
    """
    return _close_seam(_close_seam(pixels, -1, width), -2, height)


def _close_seam(pixels: Tensor, dim: int, length: int) -> Tensor:
    size = pixels.shape[dim]
    steps = torch.arange(length - size)
    ends = (mirrored(places, size) for places in (size + steps, steps - len(steps)))
    last, first = (pixels.index_select(dim, places) for places in ends)
    share = 0.5 - 0.5 * torch.cos(torch.pi * (steps + 0.5) / len(steps))
    share = share.to(pixels.dtype).view(-1, *(1 for _ in range(-1 - dim)))
    return torch.cat((pixels, last.lerp(first, share)), dim)


def fast_length(length: int) -> int:
    """Return the next length without a prime factor above 5, which the transform is quick at."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
