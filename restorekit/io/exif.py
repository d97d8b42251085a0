"""EXIF blocks: small TIFF files (Exif 2.32), whose directories say how a picture was taken."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path

from restorekit.io.ifd import (
    LONG,
    RATIONAL,
    TYPE_FORMATS,
    Buffer,
    Entry,
    Ifd,
    linked_offset,
    read_header,
    read_ifd,
    read_sub_ifd,
    short,
    write_ifd,
)

MAKE, MODEL, ORIENTATION, ARTIST, COPYRIGHT = 271, 272, 274, 315, 33432
EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD = 34665, 34853, 40965
EXPOSURE_TIME, F_NUMBER, ISO, MAKER_NOTE = 33434, 33437, 34855, 37500
TAKEN, TAKEN_FRACTION = 36867, 37521
DESCRIPTION, DATE = 270, 306
XMP, IPTC = 700, 33723
_RESOLUTION_UNIT = 296
_RESOLUTION = {282, 283, _RESOLUTION_UNIT}
# Beside them software, date, host, rating and the XP strings.
_CARRIED_TAGS = {DESCRIPTION, MAKE, MODEL, ORIENTATION, ARTIST, COPYRIGHT, *_RESOLUTION}
_CARRIED_TAGS |= {305, DATE, 316, 18246, 18249, *range(40091, 40096)}
_WIDTH, _HEIGHT = 40962, 40963
_THUMBNAILS = ((513, 514), (273, 279))


def exif_of_tiff(block: Buffer) -> bytes | None:
    """Return a self-contained EXIF block from the tags of a TIFF file or of another EXIF block.

    MakerNote and Interoperability stay behind, because their offsets would no longer fit.

    Raises:
        ValueError: it is no classic TIFF.
    """
    order, offset = read_header(block)
    main = read_ifd(block, offset, order)[0]
    carried = {tag: entry for tag, entry in main.items() if tag in _CARRIED_TAGS}
    if DESCRIPTION in carried and carried[DESCRIPTION].data.startswith(b'{"shape":'):
        del carried[DESCRIPTION]  # an array's shape, which a crop makes wrong
    if _RESOLUTION_UNIT in carried and carried[_RESOLUTION_UNIT].numbers() == [1]:
        carried = {tag: entry for tag, entry in carried.items() if tag not in _RESOLUTION}
    exif = read_sub_ifd(block, main, EXIF_IFD, order)
    exif = {t: e for t, e in exif.items() if t not in (MAKER_NOTE, INTEROPERABILITY_IFD)}
    gps = read_sub_ifd(block, main, GPS_IFD, order)
    if not (carried.keys() - _RESOLUTION or exif or gps):
        return None
    return new_exif(carried, {EXIF_IFD: exif, GPS_IFD: gps})


def packets_of_tiff(block: Buffer) -> tuple[bytes | None, bytes | None]:
    """Return the XMP packet and the IPTC records of a TIFF file.

    Raises:
        ValueError: it is no classic TIFF.
    """
    order, offset = read_header(block)
    main = read_ifd(block, offset, order)[0]
    xmp, iptc = (main[tag].data if tag in main else None for tag in (XMP, IPTC))
    return xmp, iptc


def holds_maker_note(exif: bytes) -> bool:
    """Return whether an EXIF block holds a MakerNote.

    Raises:
        ValueError: it is no EXIF block.
    """
    order, offset = read_header(exif)
    main = read_ifd(exif, offset, order)[0]
    return MAKER_NOTE in read_sub_ifd(exif, main, EXIF_IFD, order)


def new_exif(main: Ifd, sub_ifds: Mapping[int, Ifd] | None = None) -> bytes:
    """Return an EXIF block of IFD0 and the directories that pointer tags name."""
    body, start = _lay_out(main, sub_ifds or {}, 8, "<")
    return b"II*\0" + struct.pack("<I", start) + body


def append_exif(path: Path, exif: bytes) -> None:
    """Add the tags of an EXIF block to a classic TIFF file, whose own tags win.

    Resolution is taken from the EXIF block where the file states one without a unit, as TIFF
    writers do that know none.

    Raises:
        ValueError: the file or the block is no classic TIFF.
    """
    added = exif_of_tiff(exif)
    if added is None:
        return
    main = read_ifd(added, read_header(added)[1], "<")[0]
    subs = {tag: read_sub_ifd(added, main, tag, "<") for tag in (EXIF_IFD, GPS_IFD)}
    with path.open("r+b") as file:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as written:
            order, offset = read_header(written)
            ifd, following = read_ifd(written, offset, order)
        known = _RESOLUTION_UNIT in ifd and ifd[_RESOLUTION_UNIT].numbers() != [1]
        resolution = {t: e for t, e in main.items() if t in _RESOLUTION and not known}
        end = file.seek(0, 2)
        end += file.write(b"\0" * (end % 2))
        body, start = _lay_out(main | ifd | resolution, subs, end, order, following)
        file.write(body)
        file.seek(4)
        file.write(struct.pack(order + "I", start))


def exif_of_shot(
    iso: float | None, exposure_time: float | None, orientation: int = 1
) -> bytes | None:
    """Return an EXIF block that says how a picture was taken, or None where it would say nothing.

    Args:
        iso: sensitivity.
        exposure_time: seconds.
        orientation: 1..8; upright pictures need not say so.
    """
    shot: Ifd = {}
    if iso is not None and iso >= 1:
        shot[ISO] = short(min(round(iso), 65535))
    if exposure_time is not None and 0 < exposure_time < 4000:
        time = Fraction(exposure_time).limit_denominator(1_000_000)
        shot[EXPOSURE_TIME] = Entry(RATIONAL, 1, struct.pack("<II", *time.as_integer_ratio()))
    main = {ORIENTATION: short(orientation)} if orientation != 1 else {}
    return new_exif(main, {EXIF_IFD: shot}) if main or shot else None


def edit_exif(
    exif: bytes, orientation: int, *, size: tuple[int, int] | None = None, keep_gps: bool = True
) -> bytes:
    """Return an EXIF block for a picture that was changed; its other tags stay where they are.

    The thumbnail, which shows the picture as it was, is erased with its directory.

    Args:
        exif: block to edit.
        orientation: 1..8 of the changed picture.
        size: width and height, to be stated where the block states them.
        keep_gps: whether positions may stay.

    Raises:
        ValueError: it is no EXIF block.
    """
    order, offset = read_header(exif)
    ifd, thumbnail = read_ifd(exif, offset, order)
    edited, wanted = bytearray(exif), dict(ifd)
    if size is not None:
        _state_size(edited, linked_offset(ifd, EXIF_IFD), order, size)
    if not keep_gps and GPS_IFD in wanted:
        _erase_ifd(edited, linked_offset(ifd, GPS_IFD), order)
        del wanted[GPS_IFD]
    if thumbnail:
        _erase_thumbnail(edited, thumbnail, order)
    if not wanted or stated_orientation(wanted) != orientation:  # a directory is never empty
        wanted[ORIENTATION] = short(orientation)
    if wanted == ifd and not thumbnail:
        return bytes(edited)
    edited += b"\0" * (len(edited) % 2)
    struct.pack_into(order + "I", edited, 4, len(edited))
    edited += write_ifd(wanted, len(edited), order)
    return bytes(edited)


def stated_time(ifd: Ifd) -> float | None:
    """Return when the picture of an EXIF directory was taken, in seconds by the camera's clock."""
    text = ifd[TAKEN].text() if TAKEN in ifd else None
    try:
        moment = datetime.strptime(text or "", "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    fraction = ifd[TAKEN_FRACTION].text() if TAKEN_FRACTION in ifd else None
    digits = fraction if fraction and fraction.isascii() and fraction.isdecimal() else "0"
    return moment.timestamp() + float(f"0.{digits}")


def stated_orientation(ifd: Ifd) -> int:
    """Return the orientation 1..8 of a directory; 1 where it says none or nonsense."""
    numbers = ifd[ORIENTATION].numbers() if ORIENTATION in ifd else []
    return int(numbers[0]) if numbers and numbers[0] in range(1, 9) else 1


def _lay_out(
    main: Ifd, sub_ifds: Mapping[int, Ifd], offset: int, order: str, following: int = 0
) -> tuple[bytes, int]:
    """Return sub-directories and the main one, to stand at an offset, and where the main begins."""
    body, linked = bytearray(), dict(main)
    for pointer, ifd in sub_ifds.items():
        if ifd:
            start = offset + len(body)
            linked[pointer] = Entry(LONG, 1, struct.pack("<I", start))
            body += write_ifd(ifd, start, order)
    start = offset + len(body)
    return bytes(body) + write_ifd(linked, start, order, following), start


def _records(block: bytearray, offset: int, order: str) -> range:
    """Return where the entries of a directory stand, as far as they lie in the block."""
    if not 8 <= offset <= len(block) - 2:
        return range(0)
    count = struct.unpack_from(order + "H", block, offset)[0]
    return range(offset + 2, min(offset + 2 + 12 * count, len(block) - 11), 12)


def _state_size(block: bytearray, offset: int, order: str, size: tuple[int, int]) -> None:
    """Put width and height into the entries of an EXIF directory that state them."""
    for record in _records(block, offset, order):
        tag = struct.unpack_from(order + "H", block, record)[0]
        if tag in (_WIDTH, _HEIGHT):
            struct.pack_into(order + "HHII", block, record, tag, LONG, 1, size[tag == _HEIGHT])


def _erase_thumbnail(block: bytearray, offset: int, order: str) -> None:
    """Erase the second directory and the picture, JPEG or not, that it names."""
    try:
        ifd = read_ifd(bytes(block), offset, order)[0]
    except ValueError:
        return
    _erase_ifd(block, offset, order)
    for starts, lengths in _THUMBNAILS:
        if starts in ifd and lengths in ifd:
            for first, length in zip(ifd[starts].numbers(), ifd[lengths].numbers(), strict=False):
                start, stop = max(int(first), 8), int(first + length)
                _erase(block, start, stop)
                if stop >= len(block):
                    del block[start:]


def _erase_ifd(block: bytearray, offset: int, order: str) -> None:
    """Erase a directory and its values."""
    records = _records(block, offset, order)
    for record in records:
        _, kind, number, start = struct.unpack_from(order + "HHII", block, record)
        size = struct.calcsize("<" + TYPE_FORMATS.get(kind, "")) * number
        if size > 4:
            _erase(block, start, start + size)
    if records:
        _erase(block, offset, records[-1] + 12)


def _erase(block: bytearray, start: int, stop: int) -> None:
    """Overwrite bytes of a block, but never the header, with zeros."""
    start, stop = max(start, 8), min(stop, len(block))
    block[start:stop] = bytes(max(stop - start, 0))
