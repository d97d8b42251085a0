"""Find the colours that a Bayer mosaic does not sample.

Gradient-corrected linear interpolation: Malvar, He & Cutler, "High-Quality Linear Interpolation for
Demosaicing of Bayer-Patterned Color Images" (ICASSP 2004).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from restorekit.ops.color import bayer_offsets, unpack_bayer

# Times 16: green at red and blue; a colour between its neighbours in the row, in the column, and on
# the diagonals.
GREEN = ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0))
ROW = ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0))
COLUMN = tuple(zip(*ROW, strict=True))
DIAGONAL = (
    (0, 0, -3, 0, 0),
    (0, 4, 0, 4, 0),
    (-3, 0, 12, 0, -3),
    (0, 4, 0, 4, 0),
    (0, 0, -3, 0, 0),
)
SAMPLE = ((0,) * 5, (0,) * 5, (0, 0, 16, 0, 0), (0,) * 5, (0,) * 5)
_FILTERS = (
    (SAMPLE, ROW, COLUMN, DIAGONAL),
    (GREEN, SAMPLE, SAMPLE, GREEN),
    (DIAGONAL, COLUMN, ROW, SAMPLE),
)
"""What finds R, G and B where R, G1, G2 and B are sampled."""
_BAND = 256
"""Rows that are found at a time."""


def demosaic(planes: Tensor, cfa: str) -> Tensor:
    """Interpolate Bayer planes by gradient-corrected linear filters.

    Args:
        planes: (..., 4, H, W) linear R, G1, G2, B, best white-balanced; sides of 2 or more.
        cfa: colours of the upper left 2x2 cell row by row, such as "GBRG".

    Returns:
        (..., 3, 2H, 2W) R, G, B, which may overshoot the range of the planes a little.
    """
    mosaic = unpack_bayer(planes, cfa)
    *batch, height, width = mosaic.shape
    padded = F.pad(mosaic.view(-1, 1, height, width), (2, 2, 2, 2), mode="reflect")
    kernels = planes.new_tensor(_of_cells(cfa))
    colours = planes.new_empty(len(padded), 3, height, width)
    for top in range(0, height, _BAND):
        cells = F.pixel_unshuffle(padded[:, :, top : top + _BAND + 4], 2)
        colours[:, :, top : top + _BAND] = F.pixel_shuffle(F.conv2d(cells, kernels), 2)
    return colours.view(*batch, 3, height, width)


@cache
def _of_cells(cfa: str) -> list[list[list[list[float]]]]:
    """Return the filters as (12, 4, 3, 3) of 2x2 cells: three colours at each of four samples."""
    weights = torch.zeros(3, 4, 4, 3, 3)
    for plane, (row, column) in enumerate(bayer_offsets(cfa)):
        for colour, filters in enumerate(_FILTERS):
            for y, x in product(range(5), repeat=2):
                (down, below), (across, beside) = divmod(row + y, 2), divmod(column + x, 2)
                sample = 2 * below + beside
                weights[colour, 2 * row + column, sample, down, across] = filters[plane][y][x] / 16
    kernels: list[list[list[list[float]]]] = weights.flatten(0, 1).tolist()
    return kernels
