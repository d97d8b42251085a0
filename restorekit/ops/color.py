"""Transfer curves, luma and Bayer packing."""

from __future__ import annotations

import torch
from torch import Tensor


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """Decode the sRGB transfer curve (IEC 61966-2-1), with its line for values below 0."""
    curve = encoded.clamp_min(0.04045).add_(0.055).div_(1.055).pow_(2.4)
    return torch.where(encoded <= 0.04045, encoded / 12.92, curve)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode by the sRGB transfer curve (IEC 61966-2-1), with its line for values below 0."""
    curve = linear.clamp_min(0.0031308).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return torch.where(linear <= 0.0031308, linear * 12.92, curve)


def luma(rgb: Tensor) -> Tensor:
    """Return the luma of encoded pictures by the weights of ITU-R BT.601.

    Args:
        rgb: (..., 3, H, W) encoded R, G, B.

    Returns:
        (..., 1, H, W) in the range of the input.
    """
    weights = rgb.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return torch.sum(rgb * weights, dim=-3, keepdim=True)


def bayer_offsets(cfa: str) -> tuple[tuple[int, int], ...]:
    """Return the (row, column) of R, G1, G2 and B in the 2x2 cell of a Bayer pattern.

    G1 is the green in the row of R.

    Args:
        cfa: colours of the cell row by row: RGGB, BGGR, GRBG or GBRG.

    Raises:
        ValueError: another pattern.
    """
    if cfa not in ("RGGB", "BGGR", "GRBG", "GBRG"):
        raise ValueError(f"{cfa!r} is no Bayer pattern")
    row, column = divmod(cfa.index("R"), 2)
    return (row, column), (row, 1 - column), (1 - row, column), (1 - row, 1 - column)


def pack_bayer(mosaic: Tensor, cfa: str) -> Tensor:
    """Split a Bayer mosaic into its four planes.

    Args:
        mosaic: (..., H, W); the last row or column of an odd side is left out.
        cfa: colours of the upper left 2x2 cell row by row, such as "GBRG".

    Returns:
        (..., 4, H // 2, W // 2): R, G1 (in the rows of R), G2, B.
    """
    height, width = mosaic.shape[-2] // 2 * 2, mosaic.shape[-1] // 2 * 2
    planes = [mosaic[..., row:height:2, column:width:2] for row, column in bayer_offsets(cfa)]
    return torch.stack(planes, dim=-3)


def unpack_bayer(planes: Tensor, cfa: str) -> Tensor:
    """Put the four planes (..., 4, H, W) of pack_bayer back into a mosaic (..., 2H, 2W)."""
    *batch, _, height, width = planes.shape
    mosaic = planes.new_empty(*batch, 2 * height, 2 * width)
    for index, (row, column) in enumerate(bayer_offsets(cfa)):
        mosaic[..., row::2, column::2] = planes[..., index, :, :]
    return mosaic
