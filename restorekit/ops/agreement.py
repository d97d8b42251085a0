"""Where a frame of a burst shows what the reference shows, in which light, and what moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.difference_noise import noise_by_level, whitening
from restorekit.ops.gaussian import blurred

_SCALES = ((1.0, 1.0, 3.0), (2.5, 2.0, 5.0), (5.0, 1.25, 3.5))
"""Deviations of the neighbourhoods, and by how many deviations of the noise their differences are
surprising where they still agree, and where they do not agree any more."""
_DISPLACEMENT = 0.25
_BRIGHTNESS = 0.01
_MOST_EXCESS = 4.0
_QUARTILE, _SAMPLES = 0.6745, 1 << 16
"""Deviations below the mean at which a quarter of normal values lies, and how many pixels tell the
quarter of a picture."""
_MARGIN = 3
_AROUND, _FEW_AGREE, _MOST_AGREE = 10.0, 0.3, 0.7
"""Deviation of the neighbourhood of a pixel, and the share of it that agrees up to which the pixel
agrees by chance, and from which on it is believed."""

_BLOCK, _FEWEST_BLOCKS = 16, 16
_LEAST_SIGNAL, _MOST_CLIPPED = 5.0, 0.05
"""Deviations of the noise of a block, and share of its pixels, with which it tells the light."""
_UNEVEN, _OUTLYING, _ROUNDS = 0.02, 2.5, 8
"""Part of its brightness by which a block may be off beside the noise, and how many deviations."""
_USUAL, _MOST_CORRELATED = 0.455, 6.0
"""Median of the square of normal noise, and how many times the variance correlated noise has."""
_LEAST_GAIN, _CERTAIN = 0.005, 5.0
"""Smallest change of light, and how many times its error it must be."""


def agreement(reference: Tensor, frame: Tensor, *, white: bool = True) -> Tensor:
    """Say how far the difference of two pictures is explained by their noise.

    Differences are averaged over neighbourhoods of three sizes, squared, and compared with their
    variance: that of the noise, of a displacement by a fraction of a pixel, and of a change of
    light by two per cent. Where three quarters of the frame differ by more, as from noise that was
    stated too low, the comparison is eased, up to twice the deviation. What agrees in the midst of
    what does not is taken to do so by chance.

    Args:
        reference: (C, H, W), noise of deviation 1 and black 0, as stabilised gives.
        frame: (C, H, W), likewise, laid on the reference.
        white: whether the noise is so, and independent in each colour. That of other pictures, as
            a camera leaves it in finished ones, is measured by their difference.

    Returns:
        (H, W): 1 where they agree, 0 where they do not.
    """
    height, width = reference.shape[1:]
    base, other = (
        2 * functional.avg_pool2d(p[None], 2, ceil_mode=True)[0] for p in (reference, frame)
    )
    difference = other.sub_(base).div_(math.sqrt(2))
    colours = len(base)
    noise = torch.ones_like(base) if white else noise_by_level(base, difference)
    difference /= noise
    spread_of_cubes = 2 / (9 * colours)  # of chi-squared variables (Wilson & Hilferty, 1931)
    usual = (1 - spread_of_cubes - _QUARTILE * spread_of_cubes**0.5) ** 3
    weights = torch.ones(base.shape[1:])
    for spread, believed, refused in _SCALES:
        mean, level = blurred(difference, spread), blurred(base, spread)
        slopes = [slope.div_(noise) for slope in _slopes(level)]
        level.div_(noise)
        variance = 1 / (4 * math.pi * spread**2)
        if white:
            whitened = torch.eye(colours) / math.sqrt(variance)
        else:
            whitened = whitening(_of_flat(mean, slopes), variance)
        mean, level, *slopes = (
            torch.einsum("ij,jhw->ihw", whitened, each) for each in (mean, level, *slopes)
        )
        surprise = mean.square_().div_(_tolerated(slopes, level).add_(1)).mean(0)
        step = -(-surprise.numel() // _SAMPLES)
        quarter = surprise.flatten()[::step].quantile(0.25)
        surprise /= (quarter / usual).clamp(1, _MOST_EXCESS)
        excess = (surprise - 1) / math.sqrt(2 / colours)
        weights = weights.minimum((refused - excess) / (refused - believed))
    weights = -functional.max_pool2d(-weights[None].clamp_(0, 1), _MARGIN, 1, _MARGIN // 2)
    weights = functional.avg_pool2d(weights, 3, 1, 1, count_include_pad=False)
    among = blurred(weights, _AROUND).sub_(_FEW_AGREE).div_(_MOST_AGREE - _FEW_AGREE)
    weights *= among.clamp_(0, 1)
    size = weights.shape[-2] * 2, weights.shape[-1] * 2
    weights = functional.interpolate(weights[None], size, mode="bilinear", align_corners=False)
    return weights[0, 0, :height, :width].contiguous()


def _of_flat(values: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """Return a sample (C, N) of (C, H, W) values where the picture is flatter than elsewhere."""
    step = max(1, math.isqrt(values[0].numel() // _SAMPLES))
    part = (..., slice(None, None, step), slice(None, None, step))
    rough = torch.stack([slope[part] for slope in slopes]).square_().mean((0, 1))
    return values[part][:, rough <= rough.median()]


def _tolerated(slopes: Sequence[Tensor], level: Tensor) -> Tensor:
    """Return the variance of half a difference by what pictures lie off, and by a little light."""
    squared = torch.zeros_like(level)
    for slope in slopes:
        squared.addcmul_(slope, slope)
    variance = functional.max_pool2d(squared, 3, 1, 1).mul_(_DISPLACEMENT**2 / 2)
    return variance.add_((level * _BRIGHTNESS).square_().div_(2))


def _slopes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes a pixel of (C, H, W) planes, across and down."""
    padded = functional.pad(planes[None], (1,) * 4, mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return across, down


def slope_squared(planes: Tensor) -> Tensor:
    """Return the squared slope a pixel of (C, H, W) planes."""
    across, down = _slopes(planes)
    return across.square_() + down.square_()


def light_gain(reference: Tensor, frame: Tensor, usable: Tensor, shot: float, read: float) -> float:
    """Find by how much a frame must be brightened to show the light of the reference.

    Means of 16x16 blocks are compared where signal is enough. Blocks that differ by another factor
    than most, as of a thing that moved, do not count. Of the others it is the ratio of their sums,
    which noise does not bias, as it would a mean of ratios or a line fitted to them. Where blocks
    differ by more than their noise, as where it is correlated, less is taken for sure.

    Args:
        reference: (C, H, W) linear.
        frame: (C, H, W) linear, laid on the reference.
        usable: (H, W) where both have pixels, and none is clipped.
        shot: of the noise of both.
        read: of the noise of both.

    Returns:
        the gain; 1 if it is within 0.5 % or what noise makes of 1, or cannot be told.
    """
    base, other, shown = (
        functional.avg_pool2d(plane[None], _BLOCK).flatten()
        for plane in (reference.mean(0), frame.mean(0), usable.float())
    )
    level = ((base + other) / 2).clamp_min_(0)
    noise = 2 * (shot * level + read**2) / (len(reference) * _BLOCK**2)
    chosen = (shown > 1 - _MOST_CLIPPED) & (level > _LEAST_SIGNAL * noise.sqrt())
    chosen &= base.minimum(other) > 0
    base, other, variance = (v[chosen] for v in (base, other, noise + (_UNEVEN * level) ** 2))
    if len(base) < _FEWEST_BLOCKS:
        return 1.0

    def surprise(gain: float) -> Tensor:
        return (base - gain * other).square_() / variance

    gains = 1.0, float((base / other).median())
    gain = min(gains, key=lambda gain: float(surprise(gain).clamp_max_(_OUTLYING**2).sum()))
    excess = surprise(gain).median() / _USUAL
    variance *= excess.clamp_(1, _MOST_CORRELATED)
    for _ in range(_ROUNDS):
        fitting = surprise(gain) < _OUTLYING**2
        gain = float(base[fitting].sum() / other[fitting].sum())
    error = float(variance[fitting].sum().sqrt() / other[fitting].sum())
    return gain if abs(gain - 1) > max(_LEAST_GAIN, _CERTAIN * error) else 1.0
