"""Pictures from files and back, RAW and finished, chosen by content and suffix."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

from restorekit.errors import (
    DecodeError,
    OutputError,
    OutputExistsError,
    RestorekitError,
    UsageError,
)
from restorekit.image import Image, Layout, Metadata
from restorekit.io.atomic import atomic_path
from restorekit.io.checks import UNREAD_SUFFIXES, check_file
from restorekit.io.exif import exif_of_tiff
from restorekit.io.ifd import read_header, read_ifd
from restorekit.io.metadata import carried, with_exif
from restorekit.io.rgb import READ_SUFFIXES, read_rgb, write_rgb

__all__ = [
    "FORMATS",
    "UNREAD_SUFFIXES",
    "check_format",
    "is_image_path",
    "is_raw_path",
    "new_file",
    "read_image",
    "read_metadata",
    "write_image",
]

FORMATS = ("png", "jpg", "tiff", "webp", "dng", "cfa-dng")

_WRITTEN = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".bmp": "bmp",
    ".ppm": "ppm",
    ".pgm": "ppm",
    ".dng": "dng",
}
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0", b"MMOR")
_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706


def is_raw_path(path: Path) -> bool:
    """Say whether the suffix is that of a RAW file."""
    from restorekit.io.raw import RAW_SUFFIXES

    return path.suffix.lower() in RAW_SUFFIXES


def is_image_path(path: Path) -> bool:
    """Say whether the suffix is that of a picture, RAW or finished."""
    return path.suffix.lower() in READ_SUFFIXES or is_raw_path(path)


def read_image(path: Path, *, max_megapixels: float = 300.0) -> Image:
    """Read a picture, RAW or finished; what was left out stands in metadata.warnings.

    Args:
        path: a file; a RAW suffix says RAW, else its content decides.
        max_megapixels: larger pictures are refused before they are decoded.

    Raises:
        DecodeError: the file is missing, damaged, too large or of no supported kind.
    """
    path = Path(path)
    check_file(path)
    try:
        if _holds_raw(path):
            from restorekit.io.raw import read_raw

            return read_raw(path, max_megapixels=max_megapixels)
        return read_rgb(path, max_megapixels=max_megapixels)
    except (RestorekitError, MemoryError):
        raise
    except Exception as error:  # codecs raise anything on damaged files
        raise DecodeError(
            f"{path}: the file is damaged, cut off or cannot be read{_reason(error)}"
        ) from error


def read_metadata(path: Path) -> Metadata:
    """Read what a picture says of its shot, without decoding a file of the TIFF family.

    Raises:
        DecodeError: the file is missing, damaged or of no supported kind.
    """
    path = Path(path)
    check_file(path)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as block:
        try:
            return with_exif(Metadata(path=path), exif_of_tiff(block))
        except (ValueError, struct.error):
            pass
    return read_image(path).metadata


def check_format(layout: Layout, format: str | None, path: Path) -> str:
    """Return the format that write_image gives a file.

    Args:
        layout: of the picture to be written.
        format: one of FORMATS; None takes it from the suffix.
        path: file to be written.

    Raises:
        OutputError: the format cannot hold this picture, or the suffix names none.
        UsageError: no such format.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}; choose one of {', '.join(FORMATS)}")
    chosen = format or _WRITTEN.get(path.suffix.lower())
    if chosen is None:
        name = path.suffix or "files without a suffix"
        raise OutputError(f"{path}: cannot write {name}; choose one of {', '.join(FORMATS)}")
    if chosen in ("dng", "cfa-dng") and layout is not Layout.BAYER:
        raise OutputError(
            f"{path}: only a RAW picture with a Bayer mosaic can be written as {chosen}; "
            "choose tiff or png"
        )
    return chosen


def write_image(
    image: Image,
    path: Path,
    *,
    format: str | None = None,
    strip: str = "none",
    quality: int = 95,
    overwrite: bool = True,
) -> list[str]:
    """Write a picture whole or not at all, and return what the file could not hold, a line each.

    Args:
        image: BAYER pictures are developed, but for DNG; linear ones are encoded.
        path: file to write; its folder is made where it is missing.
        format: one of FORMATS; None takes it from the suffix.
        strip: "none" carries all metadata, "gps" drops positions, "all" drops EXIF, XMP and text.
        quality: 1..100, for JPEG and WebP.
        overwrite: whether a file that is there goes.

    Raises:
        OutputExistsError: there is one, and it stays.
        OutputError: the file cannot be written, or its format cannot hold this picture.
        UsageError: no such format or strip.
    """
    path = Path(path)
    chosen = check_format(image.layout, format, path)
    with new_file(path, overwrite=overwrite) as part:
        return _write(image, part, chosen, strip, quality)


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path for an output that appears whole or not at all, in a folder made here.

    Args:
        path: file to write.
        overwrite: whether a file that is there goes.

    Raises:
        OutputExistsError: there is one, and it stays.
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: its folder cannot be made{_reason(error)}") from error
    try:
        with atomic_path(path, overwrite=overwrite) as part:
            yield part
    except (RestorekitError, MemoryError):
        raise
    except FileExistsError as error:
        raise OutputExistsError(f"{path} exists") from error
    except Exception as error:  # codecs raise anything on what they cannot hold
        raise OutputError(f"{path}: cannot be written{_reason(error)}") from error


def _write(image: Image, path: Path, format: str, strip: str, quality: int) -> list[str]:
    if image.layout is not Layout.BAYER:
        return write_rgb(image, path, format, strip=strip, quality=quality)
    from restorekit.io.dng import write_cfa_dng, write_linear_dng
    from restorekit.io.raw import demosaic, develop

    if format not in ("dng", "cfa-dng"):
        developed = develop(image)
        return write_rgb(developed, path, format, strip=strip, quality=quality)
    metadata = carried(image.metadata, strip, grey=False)
    image = replace(image, metadata=replace(metadata, warnings=()))
    if format == "cfa-dng":
        write_cfa_dng(image, path)
    else:
        write_linear_dng(demosaic(image), path)
    return list(metadata.warnings)


def _holds_raw(path: Path) -> bool:
    if is_raw_path(path):
        return True
    with path.open("rb") as file:
        head = file.read(16)
        if head.startswith(_RAW_STARTS) or head[4:12] == b"ftypcrx ":
            return True
        if not head.startswith((b"II*\0", b"MM\0*")):
            return False
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            try:
                order, offset = read_header(data)
                tags, _ = read_ifd(data, offset, order)
            except (ValueError, struct.error):
                return False
    preview = _SUBFILE_TYPE in tags and tags[_SUBFILE_TYPE].numbers()[:1] == [1.0]
    return _DNG_VERSION in tags or head[8:10] == b"CR" or (preview and _SUB_IFDS in tags)


def _reason(error: Exception) -> str:
    """Return the first line of an exception in brackets, cut short, or nothing."""
    text = getattr(error, "strerror", None) or str(error)
    if re.fullmatch(r"\d+ requested and \d+ written", text):  # as NumPy reports a full disk
        text = os.strerror(errno.ENOSPC)
    lines = text.strip().splitlines()
    return f" ({lines[0][:120]})" if lines else ""
