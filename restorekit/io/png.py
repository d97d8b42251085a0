"""PNG files of 8 and 16 bits, coded by imagecodecs, and the chunks that hold their metadata.

Imagecodecs knows none of the chunks beside the pixels (PNG, third edition), so they are read and
put in here.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import get_ident

import imagecodecs
import numpy as np

from restorekit.image import Image, Metadata
from restorekit.io.checks import check_size
from restorekit.io.metadata import PNG_TEXTS, with_exif
from restorekit.io.samples import from_image, to_image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # libpng prints about the others
_DENSITY = b"pHYs"
_COLOURS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_METADATA_CHUNKS = (b"iCCP", b"eXIf", b"acTL", _DENSITY, *_COLOURS, *PNG_TEXTS)
_GAMMA_OF_SRGB, _CICP_OF_SRGB = 45455, bytes((1, 13))
_PRIMARIES_OF_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_NEAR = 500
_METRES_PER_INCH = 0.0254
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
_INFLATED_LIMIT = 1 << 24
_HEADER_END = len(SIGNATURE) + 12 + 13

_Chunk = tuple[bytes, int, int]


def read_png(path: Path, max_megapixels: float) -> Image:
    """Read a PNG file; palettes and transparent colours are expanded.

    Raises:
        DecodeError: it is empty or too large.
        Exception: whatever the codec raises on a damaged file.
    """
    data = path.read_bytes()
    width, height = struct.unpack_from(">II", data, 16)
    check_size(path, width, height, max_megapixels)
    chunks = list(_chunks(data))
    pixels = b"".join(data[start:end] for kind, start, end in chunks if kind in _PIXEL_CHUNKS)
    with _heard() as notes:
        samples = np.atleast_3d(imagecodecs.png_decode(SIGNATURE + pixels))
    bits = 8 * samples.dtype.itemsize
    metadata = Metadata(path=path, bit_depth=bits, warnings=tuple(notes))
    metadata = _with_chunks(metadata, data, chunks)
    return to_image(samples, 2**bits - 1, samples.shape[2] in (2, 4), metadata)


def write_png(image: Image, path: Path) -> list[str]:
    """Write a picture at 8 or 16 bits a sample with its metadata, and return what was lost."""
    bits = 8 if image.metadata.bit_depth <= 8 else 16
    encoded = imagecodecs.png_encode(from_image(image, bits), level=1)
    path.write_bytes(_with_metadata(bytes(encoded), image.metadata))
    if image.metadata.bit_depth > 16:
        return ["PNG holds no floating point: written with 16 bits, values outside 0..1 cut off"]
    return []


def lost_chunks(metadata: Metadata) -> list[str]:
    """Return what no other format can hold of the chunks of a PNG file, a line each."""
    chunks = dict(metadata.png_chunks)
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")) or _GAMMA_OF_SRGB
    others = abs(gamma / _GAMMA_OF_SRGB - 1) > 0.05 or _other_primaries(chunks.get(b"cHRM", b""))
    if metadata.icc_profile or b"sRGB" in chunks:
        others = False  # overruled
    notes = []
    if others or not chunks.get(b"cICP", _CICP_OF_SRGB).startswith(_CICP_OF_SRGB):
        notes.append(
            "the file states by gAMA, cHRM or cICP that its colours are not those of sRGB, which "
            "was left out: they will look different"
        )
    if chunks.keys() & set(PNG_TEXTS):
        notes.append("the text chunks of the PNG were left out")
    return notes


def _other_primaries(body: bytes) -> bool:
    """Return whether a cHRM chunk names other colours than those of sRGB but for rounding."""
    if len(body) != 4 * len(_PRIMARIES_OF_SRGB):
        return False
    pairs = zip(struct.unpack(">8I", body), _PRIMARIES_OF_SRGB, strict=True)
    return any(abs(stated - own) > _NEAR for stated, own in pairs)


def _with_chunks(metadata: Metadata, data: bytes, chunks: list[_Chunk]) -> Metadata:
    """Return the metadata with what the chunks of a PNG file say; damaged chunks are warned of."""
    exif = None
    kept: list[tuple[bytes, bytes]] = []
    notes = list(metadata.warnings)
    for kind, start, end in chunks:
        if kind not in _METADATA_CHUNKS:
            continue
        body = data[start + 8 : end - 4]
        try:
            if zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end]):
                raise ValueError("wrong check sum")
            if kind == b"iCCP":
                profile = body.split(b"\0", 1)[1]
                metadata = replace(metadata, icc_profile=_inflated(profile[1:]))
            elif kind == b"eXIf":
                exif = body
            elif kind == b"iTXt" and body.startswith(_XMP_KEYWORD + b"\0"):
                metadata = replace(metadata, xmp=_international_text(body))
            elif kind in (b"tEXt", b"zTXt") and body.startswith(_RAW_PROFILES):
                exif = exif or _raw_profile(kind, body)
            elif kind == b"acTL":
                notes.append("the PNG is animated; only its still picture was read")
            else:
                if kind == _DENSITY:
                    metadata = replace(metadata, resolution=_resolution(body))
                kept.append((kind, body))
        except (zlib.error, struct.error, ValueError, IndexError):
            notes.append(f"the {kind.decode('ascii')} chunk is damaged and was left out")
    metadata = replace(metadata, png_chunks=tuple(kept), warnings=tuple(notes))
    return with_exif(metadata, exif)


def _with_metadata(encoded: bytes, metadata: Metadata) -> bytes:
    """Return an encoded PNG with its metadata as chunks before IDAT."""
    parts = [encoded[:_HEADER_END], *(_chunk(*kept) for kept in metadata.png_chunks)]
    if metadata.resolution and _DENSITY not in dict(metadata.png_chunks):
        across, down = (round(dots / _METRES_PER_INCH) for dots in metadata.resolution)
        if min(across, down) > 0 and max(across, down) < 2**31:
            parts.append(_chunk(_DENSITY, struct.pack(">IIB", across, down, 1)))
    if metadata.icc_profile:
        body = b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)
        parts.append(_chunk(b"iCCP", body))
    if metadata.exif:
        parts.append(_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        parts.append(_chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp))
    return b"".join([*parts, encoded[_HEADER_END:]])


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what libpng warns of in this thread, which imagecodecs logs."""
    notes: list[str] = []
    thread, logger = get_ident(), logging.getLogger("imagecodecs")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                fault = record.getMessage().removeprefix("PNG warning: ")
                if not fault.startswith("Interlace handling"):  # of imagecodecs, not of the file
                    notes.append(f"the PNG has a fault: {fault}")

    listener = Listener()
    logger.addHandler(listener)
    try:
        yield notes
    finally:
        logger.removeHandler(listener)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield type, start and end of every chunk.

    Raises:
        ValueError: the file is cut off.
    """
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise ValueError("the end is missing")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _resolution(body: bytes) -> tuple[float, float] | None:
    """Return the dots per inch of a pHYs chunk, or None where it states but their proportion."""
    across, down, unit = struct.unpack(">IIB", body)
    if unit != 1 or not across or not down:
        return None
    return across * _METRES_PER_INCH, down * _METRES_PER_INCH


def _international_text(body: bytes) -> bytes:
    """Return the text of an iTXt chunk, after keyword, compression, language and translation."""
    _, rest = body.split(b"\0", 1)
    _, _, text = rest[2:].split(b"\0", 2)
    return _inflated(text) if rest[0] else text


def _raw_profile(kind: bytes, body: bytes) -> bytes:
    """Return the EXIF block that ImageMagick and Exiv2 write as hexadecimal text."""
    text = body.split(b"\0", 1)[1]
    if kind == b"zTXt":
        text = _inflated(text[1:])
    lines = text.strip().splitlines()
    return bytes.fromhex(b"".join(lines[2:]).decode("ascii"))


def _inflated(data: bytes) -> bytes:
    """Return decompressed bytes, refusing what grows beyond any honest profile."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, _INFLATED_LIMIT)
    if not inflater.eof:
        raise ValueError("too long or cut off")
    return text
