"""Lossy compression by real codecs."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

SUBSAMPLINGS = ("4:4:4", "4:2:0")


def jpeg(encoded: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """Send pictures through JPEG.

    Args:
        encoded: (..., C, H, W) sRGB-encoded, C 1 or 3; rounded to 8 bits in [0, 1].
        quality: 1 (worst) to 100.
        subsampling: resolution of the colours of RGB pictures: "4:4:4", "4:2:2" or "4:2:0".

    Returns:
        (..., C, H, W) in steps of 1/255.
    """
    decoded = [
        _round_trip(p, quality, subsampling) for p in encoded.reshape(-1, *encoded.shape[-3:])
    ]
    return torch.stack(decoded).view(encoded.shape).to(encoded.dtype)


def random_jpeg(encoded: Tensor, lowest: int, highest: int, generator: Generator) -> Tensor:
    """Send each picture through JPEG of a random quality, with or without colour subsampling.

    Args:
        encoded: (..., C, H, W) sRGB-encoded, C 1 or 3; rounded to 8 bits in [0, 1].
        lowest: least quality, 1 to 100.
        highest: greatest quality, drawn as well.
        generator: source of the draws.
    """
    pictures = encoded.reshape(-1, *encoded.shape[-3:])
    qualities = torch.randint(lowest, highest + 1, (len(pictures),), generator=generator)
    choices = torch.randint(len(SUBSAMPLINGS), (len(pictures),), generator=generator)
    decoded = [
        jpeg(picture, quality, SUBSAMPLINGS[choice])
        for picture, quality, choice in zip(
            pictures, qualities.tolist(), choices.tolist(), strict=True
        )
    ]
    return torch.stack(decoded).view(encoded.shape)


def _round_trip(picture: Tensor, quality: int, subsampling: str) -> Tensor:
    samples = (picture * 255).round().clamp(0, 255).to(torch.uint8)
    gray = len(samples) == 1
    stored = Image.fromarray((samples[0] if gray else samples.permute(1, 2, 0)).numpy())
    file = io.BytesIO()
    if gray:
        stored.save(file, "JPEG", quality=quality)
    else:
        stored.save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as decoded:
        pixels = torch.from_numpy(np.array(decoded))
    return (pixels[None] if gray else pixels.permute(2, 0, 1)).float() / 255
