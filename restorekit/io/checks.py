"""What is refused before a file is decoded."""

from __future__ import annotations

import re
from pathlib import Path

from restorekit.errors import DecodeError
from restorekit.io.dng import DngTags

UNREAD_SUFFIXES = {
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hif": "HEIC",
    ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
    ".jxr": "JPEG XR",
    ".tga": "TGA",
    ".exr": "OpenEXR",
    ".psd": "Photoshop",
    ".psb": "Photoshop",
}
"""Suffixes of well-known pictures that are not read, and their formats."""

_UNREAD_STARTS = {
    rb"....ftyp(he[iv]|mif1|msf1)": "HEIC",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000",
    rb"II\xbc": "JPEG XR",
    rb"v/1\x01": "OpenEXR",
    rb"8BPS": "Photoshop",
}


def why_unread(path: Path) -> str:
    """Return what a file is that no decoder knows, and what to do."""
    with path.open("rb") as file:
        head = file.read(12)
    if re.match(rb"....ftypavi[fs]", head, re.DOTALL):
        return "the file is damaged or cut off"
    if head.startswith(b"\xff\xd8\xff"):
        return "the JPEG is damaged, or of 12 bits or lossless, which is not supported"
    starts = (name for start, name in _UNREAD_STARTS.items() if re.match(start, head, re.DOTALL))
    name = next(starts, UNREAD_SUFFIXES.get(path.suffix.lower()))
    if name is None:
        return "this is no picture in a known format"
    return (
        f"{name} pictures are not supported; convert it to PNG or TIFF first, "
        "as by `magick IN OUT.png` of ImageMagick"
    )


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
    """Refuse a picture that is empty or too large, before it is decoded.

    Raises:
        DecodeError: it has no pixels, or more than so many million.
    """
    if width < 1 or height < 1:
        raise DecodeError(f"{path}: the file is damaged: it states {width} x {height} pixels")
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
