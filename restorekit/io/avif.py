"""AVIF pictures: samples of 8, 10 and 12 bits, and the colours that their boxes state.

Pillow reads the rest of their metadata, but cuts samples to 8 bits (AV1 Image File Format; boxes:
AV1 in ISOBMFF, 2.3, and ISO/IEC 14496-12, 12.1.5).
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13)  # 2 says nothing


def avif_samples(data: bytes) -> tuple[NDArray[Any], int]:
    """Return the (H, W, C) samples of a still picture, and the number that stands for white."""
    flags = data[data.index(b"av1C") + 6]
    bits = 8 + 2 * bool(flags & 0x40) + 2 * bool(flags & 0x20)
    return np.atleast_3d(imagecodecs.avif_decode(data)), 2**bits - 1


def avif_colours(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the colours that the file states as the cICP chunk of a PNG, or none for sRGB."""
    at = data.find(b"colrnclx")
    if at < 0:
        return ()
    primaries, transfer = struct.unpack_from(">xBxB", data, at + 8)
    if primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS:
        return ()
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)
