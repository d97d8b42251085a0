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
    *,
    overwrite: bool = False,
) -> None:
    """Write an input and its output as one picture that shows the input to the left.

    Args:
        source: file before.
        target: file after.
        path: file to write.
        crop: x, y, width and height that the output was restricted to.
        strip: metadata to leave out, as of io.write_image.
        overwrite: whether a file that is there goes.

    Raises:
        OutputExistsError: there is one, and it stays.
        UsageError: the two do not fit each other.
    """
    before, after = _finished(source), _finished(target)
    if crop is not None and before.pixels.shape[1:] != after.pixels.shape[1:]:
        before = before.crop(*stored_part(before, crop))
    if before.pixels.shape[1:] != after.pixels.shape[1:]:
        raise UsageError(f"{source} and {target} differ in size; nothing to compare")
    planes = max(len(before.pixels), len(after.pixels))
    pair = [image.to_srgb().pixels.expand(planes, -1, -1) for image in (before, after)]
    orientation = before.metadata.orientation
    if orientation in (2, 3, 6, 7):  # shown from right to left
        pair.reverse()
    pixels = torch.cat(pair, dim=-2 if orientation >= 5 else -1)
    layout = Layout.GRAY if planes == 1 else Layout.RGB
    image = replace(before.to_srgb(), pixels=pixels, layout=layout, alpha=None)
    io.write_image(image, path, strip=strip, overwrite=overwrite)


def _finished(path: Path) -> Image:
    image = io.read_image(path)
    return raw.develop(image) if image.layout is Layout.BAYER else image
