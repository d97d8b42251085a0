"""Mosaics as DNG files, written tag by tag without the package."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

SRGB_FROM_XYZ = (3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572)


def rationals(tag: int, values: Any) -> tuple[int, int, int, Any, bool]:
    pairs = [n for value in values for n in (round(value * 10000), 10000)]
    return tag, 5 if tag == 50728 else 10, len(values), tuple(pairs), True


def dng_tags(
    cfa: str = "RGGB",
    *,
    period: int = 2,
    black: tuple[int, ...] = (256,),
    white: int = 4095,
    neutral: tuple[float, float, float] = (0.5, 1.0, 0.625),
) -> list[tuple[int, int, int, Any, bool]]:
    side = 2 if len(black) == 4 else 1
    return [
        (33421, 3, 2, (period, period), True),
        (33422, 1, period**2, bytes("RGB".index(color) for color in cfa), True),
        (50706, 1, 4, bytes((1, 4, 0, 0)), True),
        (50707, 1, 4, bytes((1, 1, 0, 0)), True),
        (50708, 2, 5, b"Test\0", True),
        (50713, 3, 2, (side, side), True),
        (50714, 4, len(black), black if len(black) > 1 else black[0], True),
        (50717, 4, 1, white, True),
        (50778, 3, 1, 21, True),
        rationals(50721, SRGB_FROM_XYZ),
        rationals(50728, neutral),
    ]


def write_mosaic(path: Path, mosaic: np.ndarray, cfa: str = "RGGB", **levels: Any) -> Path:
    tags = dng_tags(cfa, **levels)
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=tags)
    return path


def scene(height: int, width: int, peak: int = 4095) -> np.ndarray:
    """Return a smooth mosaic with noise, all of it above the black of dng_tags."""
    rows, columns = np.mgrid[:height, :width]
    light = 0.35 + 0.2 * np.sin(rows / 9) + 0.2 * np.cos(columns / 13)
    noise = np.random.default_rng(0).normal(0, 0.01, light.shape)
    return np.clip(256 + (light + noise) * (peak - 256), 0, peak).astype(np.uint16)
