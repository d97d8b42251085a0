"""EXIF blocks and the directories of tags that they share with TIFF files.

An EXIF block is a small TIFF file (TIFF 6.0, Exif 2.32): directories of 12-byte entries, whose
values stand in the entry, or elsewhere in the block at an offset from its start.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path

MAKE, MODEL, ORIENTATION, ARTIST, COPYRIGHT = 271, 272, 274, 315, 33432
EXIF_IFD, GPS_IFD, INTEROPERABILITY_IFD = 34665, 34853, 40965
EXPOSURE_TIME, F_NUMBER, ISO, MAKER_NOTE = 33434, 33437, 34855, 37500
TAKEN, TAKEN_FRACTION = 36867, 37521
DESCRIPTION = 270
XMP = 700
_RESOLUTION_UNIT = 296
_RESOLUTION = {282, 283, _RESOLUTION_UNIT}
# Beside them software, date, host, rating and the XP strings.
_CARRIED_TAGS = {DESCRIPTION, MAKE, MODEL, ORIENTATION, ARTIST, COPYRIGHT, *_RESOLUTION}
_CARRIED_TAGS |= {305, 306, 316, 18246, 18249, *range(40091, 40096)}
_WIDTH, _HEIGHT = 40962, 40963
_THUMBNAILS = ((513, 514), (273, 279))

_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_FORMATS |= {11: "f", 12: "d", 13: "I", 129: "s"}
_SHORT, _LONG, _RATIONAL, _RATIONALS = 3, 4, 5, (5, 10)


Buffer = bytes | mmap


@dataclass(frozen=True)
class Entry:
    """Hold the value of one tag.

    Attributes:
        type: TIFF type number.
        count: number of values.
        data: the values, little-endian.
    """

    type: int
    count: int
    data: bytes

    def numbers(self) -> list[float]:
        """Return the values as numbers; a fraction with denominator 0 is 0."""
        code = _FORMATS[self.type]
        values = [v for group in struct.iter_unpack("<" + code, self.data) for v in group]
        if self.type in _RATIONALS:
            return [n / d if d else 0.0 for n, d in zip(values[::2], values[1::2], strict=True)]
        return [float(v) for v in values if not isinstance(v, bytes)]

    def text(self) -> str | None:
        """Return the value of an ASCII tag without its padding, or None where it is empty."""
        return self.data.split(b"\0")[0].decode("utf-8", "replace").strip() or None


Ifd = dict[int, Entry]


def short(value: int) -> Entry:
    """Return the entry of one 16-bit number."""
    return Entry(_SHORT, 1, struct.pack("<H", value))


def read_header(block: Buffer) -> tuple[str, int]:
    """Return the byte order of a classic TIFF, as struct writes it, and the offset of IFD0.

    Raises:
        ValueError: it is no classic TIFF.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[0:4]))
    if order is None or len(block) < 8:
        raise ValueError("no TIFF header")
    return order, int(struct.unpack(order + "I", block[4:8])[0])


def read_ifd(block: Buffer, offset: int, order: str) -> tuple[Ifd, int]:
    """Return the readable entries of a directory and the offset of the next one.

    Raises:
        ValueError: the directory does not lie in the block.
    """
    head = block[offset : offset + 2]
    count = struct.unpack(order + "H", head)[0] if len(head) == 2 else 0
    records = block[offset + 2 : offset + 2 + 12 * count]
    if offset < 8 or not count or len(records) < 12 * count:
        raise ValueError("a directory of tags lies outside of the block")
    ifd: Ifd = {}
    budget = len(block)
    for tag, kind, number, value in struct.iter_unpack(order + "HHI4s", records):
        size = struct.calcsize("<" + _FORMATS.get(kind, "")) * number
        if size > 4:
            start = struct.unpack(order + "I", value)[0]
            value = block[start : start + size] if size <= budget else b""
            budget -= len(value)
        if 0 < size <= len(value):
            ifd[tag] = Entry(kind, number, _swapped(kind, value[:size], order))
    end = offset + 2 + 12 * count
    following = block[end : end + 4]
    return ifd, struct.unpack(order + "I", following)[0] if len(following) == 4 else 0


def read_sub_ifd(block: Buffer, ifd: Ifd, pointer: int, order: str) -> Ifd:
    """Return the directory that a tag of another points to; empty where there is none."""
    try:
        return read_ifd(block, _target(ifd, pointer), order)[0]
    except ValueError:
        return {}


def write_ifd(ifd: Ifd, offset: int, order: str, following: int = 0) -> bytes:
    """Return the bytes of a directory and its values, to stand at an even offset of a block."""
    records, values = bytearray(struct.pack(order + "H", len(ifd))), bytearray()
    values_offset = offset + 6 + 12 * len(ifd)
    for tag, entry in sorted(ifd.items()):
        field = _swapped(entry.type, entry.data, order)
        if len(field) > 4:
            start = values_offset + len(values)
            values += field + b"\0" * (len(field) % 2)
            field = struct.pack(order + "I", start)
        records += struct.pack(order + "HHI", tag, entry.type, entry.count) + field.ljust(4, b"\0")
    return bytes(records + struct.pack(order + "I", following) + values)


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


def xmp_of_tiff(block: Buffer) -> bytes | None:
    """Return the XMP packet of a TIFF file.

    Raises:
        ValueError: it is no classic TIFF.
    """
    order, offset = read_header(block)
    packet = read_ifd(block, offset, order)[0].get(XMP)
    return packet.data if packet else None


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
        shot[EXPOSURE_TIME] = Entry(_RATIONAL, 1, struct.pack("<II", *time.as_integer_ratio()))
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
        _state_size(edited, _target(ifd, EXIF_IFD), order, size)
    if not keep_gps and GPS_IFD in wanted:
        _erase_ifd(edited, _target(ifd, GPS_IFD), order)
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
            linked[pointer] = Entry(_LONG, 1, struct.pack("<I", start))
            body += write_ifd(ifd, start, order)
    start = offset + len(body)
    return bytes(body) + write_ifd(linked, start, order, following), start


def _target(ifd: Ifd, pointer: int) -> int:
    """Return the offset that a pointer tag names; 0 where there is none, or nonsense."""
    try:
        return int(ifd[pointer].numbers()[0])
    except (KeyError, IndexError, OverflowError, ValueError):
        return 0


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
            struct.pack_into(order + "HHII", block, record, tag, _LONG, 1, size[tag == _HEIGHT])


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
        size = struct.calcsize("<" + _FORMATS.get(kind, "")) * number
        if size > 4:
            _erase(block, start, start + size)
    if records:
        _erase(block, offset, records[-1] + 12)


def _erase(block: bytearray, start: int, stop: int) -> None:
    """Overwrite bytes of a block, but never the header, with zeros."""
    start, stop = max(start, 8), min(stop, len(block))
    block[start:stop] = bytes(max(stop - start, 0))


def _swapped(kind: int, data: bytes, order: str) -> bytes:
    """Return values turned from little-endian to the order, or back."""
    word = struct.calcsize("<" + _FORMATS[kind][0])
    if order == "<" or word == 1:
        return data
    return b"".join(data[i : i + word][::-1] for i in range(0, len(data), word))
