"""How close a restored picture is to the truth."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Return 10 log10(1 / MSE) in dB of two pictures in [0, 1] of any equal shape."""
    error = float((restored.double() - clean.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)
