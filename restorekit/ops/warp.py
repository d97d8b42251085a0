"""Lay one picture on another that a hand has moved."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.ops.color import bayer_offsets
from restorekit.ops.demosaic import demosaic

LONGEST_WARPED = 32766
"""The longest side that OpenCV warps."""
_BAND = 256
_LEAST_LIGHT, _LARGEST_GAIN = 1e-6, 4.0
"""Mean of a colour that is taken for black, and by how much a colour is brightened at most to be
like green, so that the same detail shows in all; a brighter one is left as it is."""
_COLOUR_OF_PLANE = 0, 1, 1, 2


@dataclass(frozen=True)
class Motion:
    """Map a place x + iy of the reference to turn * place + shift in a frame, in pixels."""

    turn: complex = 1 + 0j
    shift: complex = 0j

    @property
    def degrees(self) -> float:
        """Return the angle of the turn."""
        return math.degrees(cmath.phase(self.turn))

    @property
    def inverse(self) -> Motion:
        """Return the motion from the frame to the reference."""
        return Motion(1 / self.turn, -self.shift / self.turn)

    def place(self, place: complex) -> complex:
        """Return where the frame shows what the reference shows at a place."""
        return self.turn * place + self.shift

    @property
    def matrix(self) -> NDArray[np.float32]:
        """Return the (2, 3) affine map of (x, y, 1)."""
        turn, shift = self.turn, self.shift
        rows = ((turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag))
        return np.array(rows, np.float32)

    def enlarged(self, factor: int) -> Motion:
        """Return the motion in pictures that are so many times as large."""
        corner = (factor - 1) / 2 * (1 + 1j)
        return Motion(self.turn, factor * self.shift + corner - self.turn * corner)


def warp_nearest(planes: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    """Lay a frame on the reference by its nearest pixels, which keeps its noise as it is.

    Args:
        planes: (C, H, W) of the frame.
        motion: from the reference to the frame.

    Returns:
        (C, H, W) as the reference lies, and (H, W) where the frame has pixels; elsewhere the
        nearest pixel of its edge stands.
    """
    height, width = planes.shape[-2:]
    warped = torch.empty_like(planes)
    inside = torch.empty(height, width, dtype=torch.bool)
    columns = torch.arange(width, dtype=torch.float64)
    a, b = motion.turn, motion.shift
    for start in range(0, height, _BAND):
        rows = torch.arange(start, min(start + _BAND, height), dtype=torch.float64)[:, None]
        x = (a.real * columns - a.imag * rows + b.real).round_().long()
        y = (a.imag * columns + a.real * rows + b.imag).round_().long()
        band = slice(start, start + len(rows))
        inside[band] = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        places = y.clamp_(0, height - 1).mul_(width).add_(x.clamp_(0, width - 1))
        for target, plane in zip(warped, planes.flatten(1), strict=True):
            target[band] = plane[places]
    return warped, inside


def warp_lanczos(planes: Tensor, motion: Motion) -> Tensor:
    """Lay a frame on the reference by Lanczos interpolation of 8x8 pixels.

    Args:
        planes: (C, H, W) float32 of the frame, sides of at most LONGEST_WARPED.
        motion: from the reference to the frame; places are rounded to 1/32 pixel.

    Returns:
        (C, H, W) as the reference lies; outside of the frame the nearest pixel of its edge stands.
    """
    return torch.stack([_lanczos(plane, motion, planes.shape[1:]) for plane in planes])


def warp_mosaic(planes: Tensor, motion: Motion, cfa: str) -> Tensor:
    """Lay a mosaic on the reference by Lanczos interpolation of its demosaiced colours.

    The samples of one colour are too far apart to show fine detail, and those of the others tell
    what lies between; their noise comes with it.

    Args:
        planes: (4, H, W) float32 of the frame, linear R, G1, G2, B, sides of at most half of
            LONGEST_WARPED.
        motion: from the reference to the frame, in pixels of a plane.
        cfa: colours of the upper left 2x2 cell row by row, such as "GBRG".

    Returns:
        (4, H, W) as the reference lies; outside of the frame the nearest pixel of its edge stands.
    """
    means = planes.mean((1, 2)).clamp_min_(_LEAST_LIGHT)
    gains = (means[1:3].mean() / means).clamp_(1, _LARGEST_GAIN)[:, None, None]
    colours = demosaic(planes * gains, cfa)
    whole, size = motion.enlarged(2), planes.shape[1:]
    laid = torch.empty_like(planes)
    for index, (row, column) in enumerate(bayer_offsets(cfa)):
        samples = Motion(2 * whole.turn, whole.place(complex(column, row)))
        laid[index] = _lanczos(colours[_COLOUR_OF_PLANE[index]], samples, size)
    return laid.div_(gains)


def _lanczos(plane: Tensor, motion: Motion, size: tuple[int, ...]) -> Tensor:
    """Return the (H, W) pixels of a plane to which a motion leads."""
    import cv2

    warped = cv2.warpAffine(
        src=plane.numpy(),
        M=motion.matrix,
        dsize=size[::-1],
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return torch.from_numpy(warped)
