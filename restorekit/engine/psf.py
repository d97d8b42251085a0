"""Point spread functions from picture files."""

from __future__ import annotations

import os
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from restorekit import io
from restorekit.errors import NoInputError, UsageError
from restorekit.image import Layout
from restorekit.ops.orientation import upright


def read_psf(path: Path) -> Tensor:
    """Read how a point was blurred: a grey picture, upright, the point's own place in its middle.

    Grey values are weights as they stand; colours are averaged. The middle of an even side of N
    pixels is pixel N // 2, counted from 0.

    Returns:
        (K, L) of odd sides, not negative, of sum 1.

    Raises:
        UsageError: all of its pixels have one value, or it is the mosaic of a RAW file.
        NoInputError: there is no such file.
        DecodeError: it cannot be read.
    """
    if not os.path.exists(path):
        raise NoInputError(f"{path}: no such file")
    image = io.read_image(path)
    if image.layout is Layout.BAYER:
        raise UsageError(f"{path}: a PSF is a grey picture, no RAW file; develop it first")
    weights = upright(image.pixels.mean(0), image.metadata.orientation).clamp_min(0)
    if not weights.isfinite().all() or weights.amax() == weights.amin():
        raise UsageError(
            f"{path}: a PSF shows a blurred point on black, and all pixels here are alike or not "
            "finite"
        )
    rows, columns = weights.shape
    weights = F.pad(weights, (0, 1 - columns % 2, 0, 1 - rows % 2))
    return weights / weights.sum()
