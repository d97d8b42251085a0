"""A picture before and after, side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from restorekit import io
from restorekit.engine.picture import stored_part
from restorekit.errors import UsageError
from restorekit.image import Image, Layout
from restorekit.io import raw


def write_comparison(
    source: Path,
    target: Path,
    path: Path,
    crop: tuple[int, int, int, int] | None = None,
    strip: str = "none",
) -> None:
    """Write an input and its output as one picture that shows the input to the left.

    Args:
        source: file before.
        target: file after.
        path: file to write.
        crop: x, y, width and height that the output was restricted to.
        strip: metadata to leave out, as of io.write_image.

    Raises:
        UsageError: the two do not fit each other.
    """
    before, after = _finished(source), _finished(target)
    if crop is not None and before.pixels.shape != after.pixels.shape:
        before = before.crop(*stored_part(before, crop))
    if before.pixels.shape != after.pixels.shape:
        raise UsageError(f"{source} and {target} differ in size or colour; nothing to compare")
    pair = [before.to_srgb().pixels, after.to_srgb().pixels]
    orientation = before.metadata.orientation
    if orientation in (2, 3, 6, 7):  # shown from right to left
        pair.reverse()
    pixels = torch.cat(pair, dim=-2 if orientation >= 5 else -1)
    io.write_image(replace(before.to_srgb(), pixels=pixels, alpha=None), path, strip=strip)


def _finished(path: Path) -> Image:
    image = io.read_image(path)
    return raw.develop(image) if image.layout is Layout.BAYER else image
