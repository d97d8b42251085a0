"""Curves over the brightness of a picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def equal_parts(values: Tensor, count: int) -> list[Tensor]:
    """Return where values (N,) lie in each of so many parts of equal number, the lowest first.

    Parts that are empty, as where many values are the same, are left out.
    """
    bounds = values.quantile(torch.linspace(0, 1, count + 1)[1:-1])
    part = torch.bucketize(values, bounds)
    return [where for index in range(count) if (where := part == index).any()]


def interpolated(places: Tensor, heights: Tensor, at: Tensor) -> Tensor:
    """Return the heights of a curve at values of any shape, level beyond its ends.

    Args:
        places: (K,), increasing.
        heights: (K,).
        at: where.
    """
    return torch.from_numpy(np.interp(at.numpy(), places.numpy(), heights.numpy())).float()
