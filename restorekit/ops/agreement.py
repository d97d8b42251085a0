"""Where a frame of a burst shows what the reference shows, and where something moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.gaussian import blurred

_SCALES = ((1.0, 1.0, 3.0), (2.5, 2.0, 5.0), (5.0, 1.25, 3.5))
"""Deviations of the neighbourhoods, and by how many deviations of the noise their differences are
surprising where they still agree, and where they do not agree any more."""
_DISPLACEMENT = 0.4
_BRIGHTNESS = 0.01
_MOST_EXCESS = 4.0
_MARGIN = 3


def agreement(reference: Tensor, frame: Tensor) -> Tensor:
    """Say how far the difference of two pictures is explained by their noise.

    Differences are averaged over neighbourhoods of three sizes, squared, and compared with their
    variance: that of the noise, of a displacement by a fraction of a pixel, and of a change of
    light by two per cent. Where most of the frame differs by more, as from noise that was stated
    too low, the comparison is eased, up to twice the deviation.

    Args:
        reference: (C, H, W), noise of deviation 1 and black 0, as stabilised gives.
        frame: (C, H, W), likewise, laid on the reference.

    Returns:
        (H, W): 1 where they agree, 0 where they do not.
    """
    channels, height, width = reference.shape
    base, other = (
        2 * functional.avg_pool2d(p[None], 2, ceil_mode=True)[0] for p in (reference, frame)
    )
    difference = (other - base) / math.sqrt(2)
    deviation = math.sqrt(2 / channels)
    weights = torch.ones(base.shape[1:])
    for spread, believed, refused in _SCALES:
        mean, level = blurred(difference, spread), blurred(base, spread)
        variance = functional.max_pool2d(slope_squared(level), 3, 1, 1).mul_(_DISPLACEMENT**2 / 2)
        variance += (level * _BRIGHTNESS).square_().div_(2)
        variance += 1 / (4 * math.pi * spread**2)
        surprise = mean.square_().div_(variance).mean(0)
        usual = (1 - 2 / (9 * channels)) ** 3
        surprise /= (surprise.median() / usual).clamp(1, _MOST_EXCESS)
        excess = (surprise - 1) / deviation
        weights = weights.minimum((refused - excess) / (refused - believed))
    weights = -functional.max_pool2d(-weights[None].clamp_(0, 1), _MARGIN, 1, _MARGIN // 2)
    weights = functional.avg_pool2d(weights, 3, 1, 1, count_include_pad=False)
    size = weights.shape[-2] * 2, weights.shape[-1] * 2
    weights = functional.interpolate(weights[None], size, mode="bilinear", align_corners=False)
    return weights[0, 0, :height, :width].contiguous()


def slope_squared(planes: Tensor) -> Tensor:
    """Return the squared slope a pixel of (C, H, W) planes."""
    padded = functional.pad(planes[None], (1,) * 4, mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return across.square_() + down.square_()
