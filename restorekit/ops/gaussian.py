"""Blur by a Gaussian, row by row and column by column."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_taps(deviation: float, radius: int) -> list[float]:
    """Return the 2 * radius + 1 weights of a Gaussian, of sum 1.

    Args:
        deviation: in pixels.
        radius: at which it is cut off.
    """
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = (-offsets.square() / (2 * deviation**2)).exp()
    return (taps / taps.sum()).tolist()


def separable_means(planes: Tensor, taps: list[float]) -> Tensor:
    """Return weighted means over square windows, where these lie inside.

    A convolution of the library would hold single planes sixteen times, or unfolded.

    Args:
        planes: (..., H, W), at least len(taps) high and wide.
        taps: weights across and down.

    Returns:
        (..., H - len(taps) + 1, W - len(taps) + 1).
    """
    for axis in (-2, -1):
        size = planes.shape[axis] - len(taps) + 1
        mean = planes.narrow(axis, 0, size) * taps[0]
        for place, tap in enumerate(taps[1:], 1):
            mean.add_(planes.narrow(axis, place, size), alpha=tap)
        planes = mean
    return planes


def blurred(planes: Tensor, deviation: float) -> Tensor:
    """Return (C, H, W) planes blurred by a Gaussian, mirrored at the edges.

    Args:
        planes: (C, H, W).
        deviation: of the Gaussian in pixels.
    """
    radius = min(math.ceil(3 * deviation), min(planes.shape[-2:]) - 1)
    padded = functional.pad(planes, (radius,) * 4, mode="reflect")
    return separable_means(padded, gaussian_taps(deviation, radius))
