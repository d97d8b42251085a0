"""Go on beyond the edges of a picture by its mirror image."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(places: Tensor, size: int) -> Tensor:
    """Return places of any size folded into 0..size-1, to and fro between the ends of a side."""
    period = max(2 * (size - 1), 1)
    places = places % period
    return torch.minimum(places, period - places)
