"""Points and smooth fields drawn on the pixel grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def splat(places: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    """Sum weighted points into pictures, each spread bilinearly over its four pixels.

    Sum and centroid of the points are kept exactly, as long as all lie inside.

    Args:
        places: (*batch, N, 2) rows and columns, centres of pixels at whole numbers; points outside
            the picture are left out.
        weights: (*batch, N).
        height: rows.
        width: columns.

    Returns:
        (*batch, height, width).
    """
    batch = weights.shape[:-1]
    pictures = math.prod(batch)
    corner = places.floor()
    down, right = (places - corner).unbind(-1)
    row, column = corner.long().unbind(-1)
    start = torch.arange(pictures).view(*batch, 1) * (height * width)
    sums = weights.new_zeros(pictures * height * width)
    for below, row_share in ((0, 1 - down), (1, down)):
        for beside, column_share in ((0, 1 - right), (1, right)):
            y, x = row + below, column + beside
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            index = (start + y * width + x)[inside]
            sums.index_add_(0, index, (weights * row_share * column_share)[inside])
    return sums.view(*batch, height, width)


def smooth_field(
    batch: Sequence[int], height: int, width: int, cells: int, generator: Generator
) -> Tensor:
    """Draw a smooth random field over [0, 1] for each picture.

    Args:
        batch: shape of the batch, () for one picture.
        height: rows.
        width: columns.
        cells: random values along each side, between which the field is bicubic.
        generator: source of the values.

    Returns:
        (*batch, 1, height, width), least value 0, greatest 1.
    """
    coarse = torch.rand(*batch, 1, cells, cells, generator=generator).view(-1, 1, cells, cells)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    low, high = field.amin((-2, -1), keepdim=True), field.amax((-2, -1), keepdim=True)
    return ((field - low) / (high - low).clamp_min(1e-6)).view(*batch, 1, height, width)
