"""Directories of tags, as TIFF files, DNG files and EXIF blocks hold them.

A directory (TIFF 6.0) is a list of 12-byte entries, whose values stand in the entry, or elsewhere
in the file at an offset from its start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap

TYPE_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
TYPE_FORMATS |= {11: "f", 12: "d", 13: "I", 129: "s"}
SHORT, LONG, RATIONAL, _RATIONALS = 3, 4, 5, (5, 10)


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
        code = TYPE_FORMATS[self.type]
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
    return Entry(SHORT, 1, struct.pack("<H", value))


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
        size = struct.calcsize("<" + TYPE_FORMATS.get(kind, "")) * number
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
        return read_ifd(block, linked_offset(ifd, pointer), order)[0]
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


def linked_offset(ifd: Ifd, pointer: int) -> int:
    """Return the offset that a pointer tag names; 0 where there is none, or nonsense."""
    try:
        return int(ifd[pointer].numbers()[0])
    except (KeyError, IndexError, OverflowError, ValueError):
        return 0


def _swapped(kind: int, data: bytes, order: str) -> bytes:
    """Return values turned from little-endian to the order, or back."""
    word = struct.calcsize("<" + TYPE_FORMATS[kind][0])
    if order == "<" or word == 1:
        return data
    return b"".join(data[i : i + word][::-1] for i in range(0, len(data), word))
