"""Colours for pixels that show none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


def filled(pixels: Tensor, visible: Tensor) -> Tensor:
    """Return pixels with means of the visible ones around them in place of the others.

    Args:
        pixels: (C, H, W).
        visible: (1, H, W), true somewhere.
    """
    if visible.all():
        return pixels
    sums, counts = (
        avg_pool2d(plane[None], 2, ceil_mode=True)[0]
        for plane in (pixels * visible, visible.float())
    )
    coarse = filled(sums / counts.clamp_min(1e-6), counts > 0)
    wide = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return torch.where(visible, pixels, wide[:, : pixels.shape[1], : pixels.shape[2]])
