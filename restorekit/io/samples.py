"""Between the samples of a file and the planes of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.image import Image, Layout, Metadata, Transfer

FIRST_ONLY = "the file holds more than one picture; only the first was read"


def to_image(samples: NDArray[Any], peak: float, alpha: bool, metadata: Metadata) -> Image:
    """Return the picture of (H, W, C) samples, the last of them alpha where there is one."""
    planes = np.ascontiguousarray(np.moveaxis(samples, 2, 0), dtype=np.float32)
    pixels = torch.from_numpy(planes)
    if peak != 1:
        pixels /= peak
    colours = len(pixels) - alpha
    return Image(
        pixels=pixels[:colours],
        transfer=Transfer.SRGB,
        layout=Layout.GRAY if colours == 1 else Layout.RGB,
        metadata=metadata,
        alpha=pixels[colours:] if alpha else None,
    )


def from_image(image: Image, bits: int, *, alpha: bool = True) -> NDArray[Any]:
    """Return (H, W) or (H, W, C) samples of 8 or 16 bits, rounded and clamped, or of 32 as is."""
    planes = image.pixels
    if alpha and image.alpha is not None:
        planes = torch.cat((planes, image.alpha))
    if bits < 32:
        peak = 2**bits - 1
        planes = planes.nan_to_num(0.0).clamp_(0, 1).mul_(peak).round_()
    kind = {8: np.uint8, 16: np.uint16, 32: np.float32}[bits]
    samples = np.ascontiguousarray(planes.permute(1, 2, 0).numpy(), dtype=kind)
    return samples[..., 0] if samples.shape[2] == 1 else samples
