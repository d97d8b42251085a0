"""Measure the noise of two pictures of one scene by their difference, whatever differs besides."""

from __future__ import annotations

import torch
from torch import Tensor

from restorekit.ops.curve import equal_parts, interpolated
from restorekit.ops.gaussian import blurred
from restorekit.ops.noise import residual

_LEVELS, _SPREAD = 16, 2.0
"""Brightnesses that are told apart, and the deviation of the window that tells them."""
_SAMPLES = 1 << 17
_LEAST_DEVIATION, _MOST_DEVIATION = 0.25, 20.0
_LEAST_RATIO, _MOST_RATIO = 0.5, 20.0
_ROUNDS = 8
_MEDIAN = 0.6745
"""Of the size of normal values of deviation 1."""


def noise_by_level(picture: Tensor, difference: Tensor) -> Tensor:
    """Return the deviation of the noise of each colour at each pixel, by its brightness.

    At each of 16 brightnesses the median of the residual of the difference tells it, which what
    moved hardly changes.

    Args:
        picture: (C, H, W).
        difference: (C, H, W) of it and another, divided by the root of 2.

    Returns:
        (C, H, W), from a quarter to 20.
    """
    if min(picture.shape[1:]) < 3:
        return torch.ones_like(picture)
    level = blurred(picture.mean(0, keepdim=True), _SPREAD)[0]
    sizes = residual(difference).abs_().flatten(1)
    inner = level[1:-1, 1:-1].flatten()
    step = -(-inner.numel() // _SAMPLES)
    inner, sizes = inner[::step].contiguous(), sizes[:, ::step]
    chosen = equal_parts(inner, _LEVELS)
    places = torch.stack([inner[where].mean() for where in chosen])
    medians = torch.stack([sizes[:, where].median(1).values for where in chosen], 1)
    curves = medians.div_(_MEDIAN).clamp_(_LEAST_DEVIATION, _MOST_DEVIATION)
    return torch.stack([interpolated(places, curve, level) for curve in curves])


def whitening(values: Tensor, variance: float) -> Tensor:
    """Return what makes the noise of colours independent and of variance 1.

    It is the root of the inverse of their covariance over the half of the values whose covariance
    is least (Rousseeuw & Van Driessen, "A Fast Algorithm for the Minimum Covariance Determinant
    Estimator", Technometrics 1999, Section 3), so that what moved does not count.

    Args:
        values: (C, N), of mean 0 but for what moved.
        variance: of the colours if they were independent and white; each principal one is taken
            to be at least half and at most 20 times it.

    Returns:
        (C, C).
    """
    channels = len(values)
    covariance = values.square().median() * torch.eye(channels)
    for _ in range(_ROUNDS):
        principal, axes = torch.linalg.eigh(covariance.double())
        principal.clamp_(_LEAST_RATIO * variance, _MOST_RATIO * variance)
        whitened: Tensor = (axes * principal.rsqrt()).T.float()
        distance = (whitened @ values).square_().sum(0)
        near = values[:, distance <= distance.median()]
        covariance = near @ near.T / (near.shape[1] * _share_of_variance(channels))
    return whitened


def _share_of_variance(channels: int) -> float:
    """Return the variance of the nearer half of normal values of variance 1."""
    median = channels * (1 - 2 / (9 * channels)) ** 3  # Wilson & Hilferty, 1931
    halves = torch.tensor([channels / 2 + 1, median / 2])
    return 2 * float(torch.special.gammainc(halves[0], halves[1]))
