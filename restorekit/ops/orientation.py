"""Turn stored pixels as they are looked at, and back (Exif 2.32, tag 274)."""

from __future__ import annotations

from torch import Tensor

_FLIPS = {-2: (3, 4, 6, 7), -1: (2, 3, 7, 8)}
"""Orientations whose stored rows, and whose stored columns, run backwards."""


def upright(planes: Tensor, orientation: int) -> Tensor:
    """Return stored (..., H, W) planes of an orientation 1..8 as they are looked at."""
    planes = planes.flip([dim for dim, turned in _FLIPS.items() if orientation in turned])
    return planes.mT if orientation >= 5 else planes


def stored(planes: Tensor, orientation: int) -> Tensor:
    """Return upright (..., H, W) planes as they are stored with an orientation 1..8."""
    planes = planes.mT if orientation >= 5 else planes
    return planes.flip([dim for dim, turned in _FLIPS.items() if orientation in turned])
