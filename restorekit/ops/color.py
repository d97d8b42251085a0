"""Transfer curves, luma, Bayer packing and the generalised Anscombe transform."""

from __future__ import annotations

import torch
from torch import Tensor


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """Decode the sRGB transfer curve (IEC 61966-2-1), with its line for values below 0."""
    curve = ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, curve)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode by the sRGB transfer curve (IEC 61966-2-1), with its line for values below 0."""
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
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


def anscombe(signal: Tensor, shot: float, read: float) -> Tensor:
    """Give noise of variance shot * signal + read**2 unit variance at every level.

    This is the generalised Anscombe transform (Starck, Murtagh & Bijaoui, 1998).

    Args:
        signal: linear values of any shape; those below black are allowed.
        shot: variance per unit of signal, above 0.
        read: deviation in black.

    Raises:
        ValueError: shot is not above 0.
    """
    if shot <= 0:
        raise ValueError("the Anscombe transform needs shot noise above 0")
    variance = shot * signal + 0.375 * shot**2 + read**2
    return variance.clamp_min(0).sqrt() * (2 / shot)


def anscombe_inverse_unbiased(stabilised: Tensor, shot: float, read: float) -> Tensor:
    """Return the linear signal whose noisy values have the given mean after anscombe.

    This is the closed-form approximation of the exact unbiased inverse (Makitalo & Foi, IEEE TIP
    2013). Squaring alone would darken the picture, since the mean of a root is not the root of the
    mean.

    Args:
        stabilised: denoised values of anscombe, any shape.
        shot: variance per unit of signal, above 0.
        read: deviation in black.

    Raises:
        ValueError: shot is not above 0.
    """
    if shot <= 0:
        raise ValueError("the Anscombe transform needs shot noise above 0")
    root = 1.5**0.5
    inverse = 1 / stabilised.clamp_min(root)
    bias = (root / 4) * inverse - 1.375 * inverse**2 + (0.625 * root) * inverse**3 - 0.125
    counts: Tensor = stabilised.clamp_min(root) ** 2 / 4 + bias
    return shot * (counts - (read / shot) ** 2)
