"""Estimate the noise of linear planes from the planes alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.clipping import before_clipping

_BLOCK = 8
_BINS = 40
_QUANTILE = 0.1
_BLOCKS_IN_BIN = 40
_USEFUL = 0.5
"""Share of the blocks of a range that counts."""
_ROUNDS = 4
_MOST_CUT = 0.7
_PIXELS = 4_000_000


def estimate_noise_profile(planes: Tensor) -> tuple[float, float]:
    """Estimate shot and read of noise with variance shot * signal + read**2.

    Every plane is cut into 8x8 blocks. In each of 40 ranges of brightness the tenth of the blocks
    that is flattest in the *other* planes tells the variance there: noise is independent between
    planes and texture is not, so this choice does not favour small noise, as the choice by a
    block's own variance would. A line through the ranges that trusts low variances most is the
    profile. Noise that the least or the greatest value cuts off is told by what is left of it;
    blocks of which most is cut off do not count, nor do ranges in which they are many.

    Args:
        planes: (C, H, W) linear, black 0 and white 1, values below black kept; the noise of its
            pixels is uncorrelated. A single plane is split into its four phases.

    Returns:
        shot and read, never negative. Flat pictures tell one level only: shot is 0 then.
    """
    if planes.shape[0] == 1:
        height, width = planes.shape[-2] // 2 * 2, planes.shape[-1] // 2 * 2
        planes = functional.pixel_unshuffle(planes[:, :height, :width], 2)
    planes = bands(planes.float())
    if min(planes.shape[-2:]) < _BLOCK + 2:
        return 0.0, 0.0
    signal, variance, useful, ends = _block_statistics(planes)
    shot = read_variance = 0.0
    expected = torch.ones_like(variance)
    for _ in range(_ROUNDS):
        ratio = variance / expected
        texture = ratio.sum(0, keepdim=True) - ratio
        level, power, count = _variance_by_level(signal, variance, texture, useful)
        for end, inwards in ends:
            distance, power = before_clipping(inwards * (level - end), power)
            level = end + inwards * distance
        shot, read_variance = _fit_line(level, power, count)
        expected = (shot * signal.clamp_min(0) + read_variance).clamp_min(1e-12)
    return shot, read_variance**0.5


def bands(planes: Tensor) -> Tensor:
    """Return evenly spaced bands of rows when a picture has more pixels than are needed."""
    count, height, width = planes.shape
    keep = max(64, int(_PIXELS / max(1, count * width)))
    if height <= 2 * keep:
        return planes
    band = _BLOCK * 8
    starts = torch.linspace(0, height - band, max(1, keep // band)).long()
    return torch.cat([planes[:, start : start + band] for start in starts.tolist()], dim=1)


def residual(planes: Tensor) -> Tensor:
    """Return the Laplacian of rows and columns, which keeps the strength of white noise.

    Args:
        planes: (C, H, W).

    Returns:
        (C, H - 2, W - 2).
    """
    rows = planes[:, 2:] - 2 * planes[:, 1:-1] + planes[:, :-2]
    return (rows[:, :, 2:] - 2 * rows[:, :, 1:-1] + rows[:, :, :-2]) / 6


def _block_statistics(planes: Tensor) -> tuple[Tensor, Tensor, Tensor, list[tuple[float, int]]]:
    """Return mean, variance of the Laplacian residual and use of all blocks, and what ends noise.

    That is a value at which it is cut off, and 1 or -1 for noise above or below it.
    """
    inner = planes[:, 1:-1, 1:-1]
    flat = planes.flatten(1)
    signal, variance = (
        functional.avg_pool2d(values, _BLOCK).flatten(1)
        for values in (inner, residual(planes).square())
    )
    useful, ends = torch.ones_like(signal, dtype=torch.bool), []
    for limit, inwards in ((flat.amin(1), 1), (flat.amax(1), -1)):
        at_limit = planes == limit.view(-1, 1, 1)
        often = at_limit.flatten(1).float().mean(1) > 1e-3
        share = functional.avg_pool2d(at_limit[:, 1:-1, 1:-1].float(), _BLOCK).flatten(1)
        useful &= (share <= _MOST_CUT) | ~often[:, None]
        if often.any():
            ends.append((float(limit[often].mean()), inwards))
    return signal, variance, useful, ends


def _variance_by_level(
    signal: Tensor, variance: Tensor, texture: Tensor, useful: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return brightness, variance and number of the flattest blocks in each range."""
    sample = signal.flatten()
    sample = sample[:: max(1, sample.numel() // 100_000)]
    low, high = torch.quantile(sample, sample.new_tensor([0.001, 0.999])).tolist()
    position = ((signal - low) / max(high - low, 1e-12)).clamp(0, 1).sqrt()
    bins = (position * _BINS).long().clamp_max(_BINS - 1)
    levels = list(_levels(signal, variance, texture, useful, bins))
    if not levels:
        levels = [(signal.mean().item(), variance.median().item(), 1.0)]
    table = torch.tensor(levels, dtype=torch.float64)
    return table[:, 0], table[:, 1], table[:, 2]


def _levels(
    signal: Tensor, variance: Tensor, texture: Tensor, useful: Tensor, bins: Tensor
) -> Iterator[tuple[float, float, float]]:
    """Yield what _variance_by_level returns of ranges with at least a share of useful blocks."""
    least = max(1, min(_BLOCKS_IN_BIN, variance.numel() // 10))
    for index in range(_BINS):
        inside = bins == index
        usable = inside & useful
        total, count = int(inside.sum()), int(usable.sum())
        if count < least or count < _USEFUL * total:
            continue
        flattest = texture[usable].topk(max(1, int(count * _QUANTILE)), largest=False).indices
        level, power = (float(values[usable][flattest].mean()) for values in (signal, variance))
        yield level, power, float(len(flattest))


def _fit_line(signal: Tensor, variance: Tensor, count: Tensor) -> tuple[float, float]:
    """Return slope and offset, neither below 0, of a line that points above it pull little."""
    weight = count / variance.clamp_min(1e-12).square()
    level = (weight * variance).sum() / weight.sum()
    if signal.max() - signal.min() < 0.02:
        return 0.0, float(level)
    slope, offset = 0.0, float(level)
    for _ in range(6):
        x, y = (weight * signal).sum() / weight.sum(), (weight * variance).sum() / weight.sum()
        spread = (weight * (signal - x).square()).sum()
        slope = float((weight * (signal - x) * (variance - y)).sum() / spread.clamp_min(1e-30))
        offset = float(y - slope * x)
        if offset < 0:
            positive = weight * signal.clamp_min(0)
            square = (positive * signal).sum().clamp_min(1e-30)
            slope, offset = float((positive * variance).sum() / square), 0.0
        if slope < 0:
            slope, offset = 0.0, float(y)
        fitted = (slope * signal + offset).clamp_min(1e-12)
        excess = ((variance - fitted) / fitted).clamp_min(0)
        weight = count / fitted.square() / (1 + (excess / 0.1).square())
    return slope, offset
