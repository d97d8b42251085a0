"""Tell white noise by brightness, and what encoding does to the mean of noise of light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.curve import interpolated

_CELL = 4
_PLACES, _REACH, _NODES = 1025, 4.0, 201


@dataclass(frozen=True)
class NoiseCurve:
    """Describe white noise in an encoded picture that is not as strong everywhere.

    Attributes:
        brightness: in [0, 1], ascending, the mean of the colours, noise included.
        deviation: at each, in units of white; between two of them on a straight line.
        overall: deviation in the whole picture, in units of white.
        clean: brightness at each without noise; None where noise leaves the mean alone.
    """

    brightness: tuple[float, ...]
    deviation: tuple[float, ...]
    overall: float
    clean: tuple[float, ...] | None = None

    def at(self, brightness: Tensor) -> Tensor:
        """Return the deviation at each brightness."""
        places, heights = torch.tensor(self.brightness), torch.tensor(self.deviation)
        return interpolated(places, heights, brightness)

    def around(self, pixels: Tensor) -> Tensor:
        """Return the (1, H, W) deviation at the mean brightness around each of (C, H, W) pixels."""
        mean = _cells(pixels.float().mean(0, keepdim=True))
        return _between_cells(self.at(mean), pixels.shape)

    def without_bias(self, restored: Tensor, noisy: Tensor) -> Tensor:
        """Return restored values, local means of noisy ones, less what noise adds to the mean.

        That is taken from the mean around each, so that errors do not grow. Values that the network
        left alone stay.

        Args:
            restored: (C, H, W) encoded.
            noisy: (C, H, W) encoded.
        """
        assert self.clean is not None
        mean = _cells(restored)
        clean = interpolated(torch.tensor(self.brightness), torch.tensor(self.clean), mean)
        bias = _between_cells(mean - clean, restored.shape)
        return torch.where(restored == noisy, restored, restored - bias)


def curve_of_light(
    shot: float, read: float, overall: float, ends: tuple[float, float]
) -> NoiseCurve:
    """Return how noise of variance shot * x + read**2 around linear light x shows when encoded.

    The transfer curve bends it and black and white cut it off, so that its mean is not what it is
    around (as Foi, "Clipped noisy images", Signal Processing 2009, Section 3, has it for clipping
    alone). Moments are sums over the normal distribution.

    Args:
        shot: variance a unit of light.
        read: deviation at black.
        overall: deviation in the whole encoded picture.
        ends: between which linear values lie.
    """
    light = srgb_to_linear(_places())
    noisy = light[:, None] + (shot * light + read**2).sqrt()[:, None] * _steps()
    return _curve(linear_to_srgb(noisy.clamp(*ends)), overall)


def curve_of_white(std: float, ends: tuple[float, float]) -> NoiseCurve:
    """Return how noise of one strength shows that is cut off at the ends of an encoded picture."""
    return _curve((_places()[:, None] + std * _steps()).clamp(*ends), std)


def _places() -> Tensor:
    return torch.linspace(0, 1, _PLACES, dtype=torch.float64)


def _steps() -> Tensor:
    return torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64)


def _curve(shown: Tensor, overall: float) -> NoiseCurve:
    """Return the curve of (places, steps) values that steps of the deviation give at places."""
    weights = torch.softmax(-(_steps() ** 2) / 2, 0)
    mean = shown @ weights
    deviation = ((shown - mean[:, None]).square() @ weights).sqrt()
    return NoiseCurve(
        brightness=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
        overall=overall,
        clean=tuple(_places().tolist()),
    )


def _cells(planes: Tensor) -> Tensor:
    """Return the means of the cells of (C, H, W) planes."""
    return functional.avg_pool2d(planes, _CELL, ceil_mode=True)


def _between_cells(values: Tensor, shape: torch.Size) -> Tensor:
    """Return values of cells for each pixel of (C, H, W) planes, on lines between the cells."""
    wide = functional.interpolate(values[None], scale_factor=_CELL, mode="bilinear")[0]
    return wide[:, : shape[1], : shape[2]]
