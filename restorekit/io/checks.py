"""What is refused before a file is decoded."""

from __future__ import annotations

from pathlib import Path

from restorekit.errors import DecodeError
from restorekit.io.dng import DngTags


def check_file(path: Path) -> None:
    """Refuse a path that holds no bytes of a file.

    Raises:
        DecodeError: nothing is there, a folder, a pipe or device, or an empty file.
    """
    if path.is_file():
        reason = "" if path.stat().st_size else "the file is empty"
    elif path.is_dir():
        reason = "this is a folder"
    elif path.exists():
        reason = "this is a pipe or a device; copy what it holds to a file first"
    else:
        reason = "there is no such file"
    if reason:
        raise DecodeError(f"{path}: {reason}")


def check_size(path: Path, width: int, height: int, max_megapixels: float) -> None:
    """Refuse a picture that is too large, before it is decoded.

    Raises:
        DecodeError: it has more than so many million pixels.
    """
    if width * height > max_megapixels * 1e6:
        raise DecodeError(
            f"{path}: {width} x {height} pixels are above the limit of {max_megapixels:g} "
            "megapixels, which only read_image of restorekit.io can raise, by its max_megapixels"
        )


def check_dng(path: Path, tags: DngTags) -> None:
    """Refuse the kinds of DNG that LibRaw does not read, or reads wrongly.

    Raises:
        DecodeError: one of these.
    """
    kind = None
    if tags.is_float:
        kind = "floating-point"
    elif tags.compression in (50002, 52546):
        kind = "JPEG XL compressed"
    elif tags.compression in (8, 32946):
        kind = "deflate compressed"
    elif tags.compression == 9:
        kind = "GoPro (VC-5) compressed"
    if kind:
        raise DecodeError(
            f"{path}: {kind} DNG files are not supported; convert it to a DNG with lossless JPEG "
            "or without compression by the DNG converter of Adobe"
        )
