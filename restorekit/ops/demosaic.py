"""Find the colours that a Bayer mosaic does not sample.

Gradient-corrected linear interpolation: Malvar, He & Cutler, "High-Quality Linear Interpolation for
Demosaicing of Bayer-Patterned Color Images" (ICASSP 2004).
"""

from __future__ import annotations

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
_FILTERS = (
    (None, ROW, COLUMN, DIAGONAL),
    (GREEN, None, None, GREEN),
    (DIAGONAL, COLUMN, ROW, None),
)
"""What finds R, G and B where R, G1, G2 and B are sampled."""


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
    colours = planes.new_empty(*batch, 3, height, width)
    for place, (row, column) in enumerate(bayer_offsets(cfa)):
        cells = padded[..., row : row + height + 3, column : column + width + 3]
        for colour, filters in enumerate(_FILTERS):
            values = planes[..., place, :, :]
            if filters[place] is not None:
                weights = planes.new_tensor(filters[place])[None, None] / 16
                values = F.conv2d(cells, weights, stride=2).view_as(values)
            colours[..., colour, row::2, column::2] = values
    return colours
