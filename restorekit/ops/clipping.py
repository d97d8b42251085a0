"""Undo what clipping at black and white has done to the mean of noise.

Noise around a dark place is cut off below black, so that its mean is brighter than the place: of
deviation s around x it is x * Phi(x / s) + s * phi(x / s), with the normal distribution Phi and its
density phi (Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising", Signal
Processing 2009, Section 3). The same holds at white.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_REACH, _STEPS = 4.0, 4096
"""Deviations from black or white, up to which clipping is undone, and entries of the table."""
_CELL, _ROUNDED = 8, 1e-6


def unclipped(
    restored: Tensor,
    noisy: Tensor,
    std: Tensor | float,
    *,
    black: float = 0.0,
    white: float | None = 1.0,
) -> Tensor:
    """Return restored values as if the noise had not been clipped.

    Only values near noise that was clipped change, and none that the network left alone. Noise
    that mostly lies beyond an end is not clipped there.

    Args:
        restored: (C, H, W), the local mean of the noisy values.
        noisy: (C, H, W).
        std: deviation of the noise in units of white, a number or a (1, H, W) map.
        black: value at which noise is cut off below.
        white: and above; None where it is not looked at.

    Returns:
        (C, H, W), between the ends where it changed.
    """
    result = restored.clone()
    deviation = torch.as_tensor(std, dtype=restored.dtype).expand_as(restored[:1])[0]
    ends = [(black, 1)] if white is None else [(black, 1), (white, -1)]
    for plane, seen in zip(result, noisy, strict=True):
        for end, inwards in ends:
            clipped = (seen - end).abs() < _ROUNDED
            beyond = inwards * (seen - end) < -_ROUNDED
            if clipped.count_nonzero() <= beyond.count_nonzero():
                continue
            distance = inwards * (plane - end)
            chosen = (distance < _REACH * deviation) & (plane != seen) & _around(clipped)
            told = deviation[chosen]
            plane[chosen] = end + inwards * told * _distance_before(distance[chosen] / told)
    return result


def before_clipping(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of noise that is cut off below 0 as if it were not.

    Args:
        mean: (N,) of what is left.
        variance: (N,) of it.

    Returns:
        (N,) each; a mean below 0 is not told from 0.
    """
    places = torch.linspace(0, 2 * _REACH, _STEPS + 1, dtype=torch.float64)
    means, powers = _clipped_moments(places)
    found = torch.searchsorted(means / powers.sqrt(), mean.double() / variance.double().sqrt())
    found = found.clamp_max(_STEPS)
    std = (variance / powers[found]).sqrt()
    far = found == _STEPS
    return torch.where(far, mean, std * places[found]), torch.where(far, variance, std.square())


def _clipped_moments(places: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of noise of deviation 1 around places, cut off below 0."""
    below, density = torch.special.ndtr(places), torch.exp(-(places**2) / 2) / math.tau**0.5
    means = places * below + density
    return means, (places**2 + 1) * below + places * density - means**2


def at_ends(values: Tensor) -> Tensor:
    """Return which encoded values are black or white, but for rounding."""
    return (values.abs() < _ROUNDED) | ((values - 1).abs() < _ROUNDED)


def _around(clipped: Tensor) -> Tensor:
    """Return where a value of (H, W) is clipped within 8 to 16 pixels."""
    height, width = clipped.shape
    cells = functional.max_pool2d(clipped[None].to(torch.float32), _CELL, ceil_mode=True)
    near = functional.max_pool2d(cells, 3, 1, 1)[0] > 0
    return near.repeat_interleave(_CELL, 0)[:height].repeat_interleave(_CELL, 1)[:, :width]


def _distance_before(mean: Tensor) -> Tensor:
    """Return how far from its end a place lies whose clipped noise has this mean, in deviations."""
    cells = mean.clamp(0, _REACH).mul_(_STEPS / _REACH)
    left = cells.long().clamp_max_(_STEPS - 1)
    table = _places().to(mean)
    return torch.lerp(table[left], table[left + 1], cells.sub_(left))


@cache
def _places() -> Tensor:
    """Return the places, 0 or beyond, of means that lie evenly from 0 to _REACH deviations."""
    places = torch.linspace(0, 2 * _REACH, 16 * _STEPS, dtype=torch.float64)
    means, _ = _clipped_moments(places)
    sought = torch.linspace(0, _REACH, _STEPS + 1, dtype=torch.float64)
    return places[torch.searchsorted(means, sought)]
