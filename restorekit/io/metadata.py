"""What files say beside their pixels, carried from one to another."""

from __future__ import annotations

import re
import struct
from dataclasses import replace

from restorekit.errors import UsageError
from restorekit.image import Metadata
from restorekit.io.exif import (
    EXIF_IFD,
    EXPOSURE_TIME,
    F_NUMBER,
    ISO,
    MAKE,
    MODEL,
    edit_exif,
    exif_of_shot,
    stated_orientation,
    stated_time,
)
from restorekit.io.ifd import Ifd, read_header, read_ifd, read_sub_ifd

STRIPS = ("none", "gps", "all")
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

_GPS_ATTRIBUTE = re.compile(rb"\s[\w.-]+:gps\w*\s*=\s*(?:\"[^\"]*\"|'[^']*')", re.IGNORECASE)
_GPS_ELEMENT = re.compile(rb"<([\w.-]+:gps\w*)[^<>]*(?:/>|>[^<]*</\1\s*>)", re.IGNORECASE)


def with_exif(metadata: Metadata, exif: bytes | None) -> Metadata:
    """Return the metadata with an EXIF block and the fields that it fills; a warning if damaged."""
    if not exif:
        return metadata
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order, offset = read_header(exif)
        main = read_ifd(exif, offset, order)[0]
    except ValueError:
        warning = "the EXIF block is damaged and was left out"
        return replace(metadata, warnings=(*metadata.warnings, warning))
    shot = read_sub_ifd(exif, main, EXIF_IFD, order)
    return replace(
        metadata,
        exif=exif,
        orientation=stated_orientation(main),
        iso=_positive(shot, ISO),
        exposure_time=_positive(shot, EXPOSURE_TIME),
        f_number=_positive(shot, F_NUMBER),
        taken=stated_time(shot),
        make=main[MAKE].text() if MAKE in main else None,
        model=main[MODEL].text() if MODEL in main else None,
    )


def carried(
    metadata: Metadata, strip: str, *, grey: bool, size: tuple[int, int] | None = None
) -> Metadata:
    """Return the metadata to write, with what was lost on the way under warnings.

    Args:
        metadata: what the picture says.
        strip: "none" keeps all, "gps" drops positions, "all" drops EXIF, XMP, IPTC and text;
            colours and orientation always stay, for the picture would look wrong without them.
        grey: whether the file will hold a grey picture.
        size: width and height that the file will have, for the EXIF block to state.

    Raises:
        UsageError: no such strip.
    """
    if strip not in STRIPS:
        raise UsageError(f"there is no strip {strip!r}; choose one of {', '.join(STRIPS)}")
    warnings = []
    if strip == "all":
        metadata = replace(metadata, exif=None, xmp=None, iptc=None, iso=None, exposure_time=None)
    exif, xmp = metadata.exif, metadata.xmp
    if exif:
        try:
            exif = edit_exif(exif, metadata.orientation, size=size, keep_gps=strip == "none")
        except (OverflowError, ValueError, struct.error):
            warnings.append("the EXIF block is damaged and was left out")
            exif = None
    if not exif:
        exif = exif_of_shot(metadata.iso, metadata.exposure_time, metadata.orientation)
    if xmp and strip == "gps":
        xmp = _GPS_ELEMENT.sub(b"", _GPS_ATTRIBUTE.sub(b"", xmp))
        if b"gps" in xmp.replace(b"\0", b"").lower():
            warnings.append("the XMP packet was left out, because positions could not be cut out")
            xmp = None
    profile = metadata.icc_profile
    if profile and profile[16:20] != (b"GRAY" if grey else b"RGB "):
        warnings.append("the ICC profile does not fit the colours of the picture and was left out")
        profile = None
    return replace(
        metadata,
        exif=exif,
        xmp=xmp,
        icc_profile=profile,
        png_chunks=tuple(c for c in metadata.png_chunks if _may_stay(*c, strip)),
        warnings=tuple(warnings),
    )


def _may_stay(kind: bytes, body: bytes, strip: str) -> bool:
    """Say whether a chunk of a PNG file is to be carried; a raw profile may hold positions."""
    if strip == "none" or kind not in PNG_TEXTS:
        return True
    placed = b"gps" in body.lower() or body.startswith(b"Raw profile type")
    return strip == "gps" and not placed


def _positive(ifd: Ifd, tag: int) -> float | None:
    numbers = ifd[tag].numbers() if tag in ifd else []
    return numbers[0] if numbers and numbers[0] > 0 else None
