"""TIFF files of 8, 16 and 32 bits a sample, coded by tifffile."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from restorekit.errors import DecodeError
from restorekit.image import Image, Layout, Metadata
from restorekit.io.checks import check_size
from restorekit.io.exif import (
    ARTIST,
    COPYRIGHT,
    DATE,
    DESCRIPTION,
    EXIF_IFD,
    GPS_IFD,
    IPTC,
    MAKE,
    MODEL,
    ORIENTATION,
    XMP,
    append_exif,
    exif_of_tiff,
    holds_maker_note,
)
from restorekit.io.metadata import with_exif
from restorekit.io.samples import FIRST_ONLY, from_image, to_image

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_TAGS = (DESCRIPTION, MAKE, MODEL, DATE, ARTIST, COPYRIGHT, EXIF_IFD, GPS_IFD)
_INCHES = {2: 1.0, 3: 1 / 2.54}
_LAYOUT_TAGS = {*range(256, 260), 262, 266, 273, *range(277, 280), 284, *range(317, 326), 338, 339}

for library in ("tifffile", "imagecodecs"):
    logging.getLogger(library).addHandler(logging.NullHandler())


def read_tiff(path: Path, max_megapixels: float) -> Image:
    """Read the first page of a TIFF file; floating point and its range are as stored.

    Raises:
        DecodeError: a kind of picture that is not supported, too large, or cut off.
        Exception: whatever the codec raises on a damaged file.
    """
    with (
        path.open("rb") as file,
        mmap(file.fileno(), 0, access=ACCESS_READ) as data,
        tifffile.TiffFile(file) as tiff,
    ):
        page, number = _first_full(tiff)
        check_size(path, page.imagewidth, page.imagelength * page.imagedepth, max_megapixels)
        if page.is_tiled:
            check_size(path, page.tilewidth, page.tilelength, max_megapixels)
        _check(path, tiff.tiff, page, data)
        samples, peak, notes = _decoded(page)
        colours = 1 if page.photometric in (0, 1) else 3
        extra = [int(kind) for kind in page.extrasamples[: samples.shape[2] - colours]]
        alpha = next((place for place, kind in enumerate(extra) if kind in (1, 2)), None)
        channels = [*range(colours)] if alpha is None else [*range(colours), colours + alpha]
        associated = alpha is not None and extra[alpha] == 1
        if samples.shape[2] > len(channels):
            notes.append("channels beside colour and transparency were left out")
        samples = samples[..., channels]
        if page.photometric == 0:
            white = samples[..., 1:] if associated else peak
            samples[..., :1] = white - samples[..., :1].clip(max=white)
        if len(tiff.pages) > number + 1:
            notes.append(FIRST_ONLY)
        metadata = Metadata(
            path=path,
            bit_depth=32 if samples.dtype.kind == "f" else 8 if peak < 256 else 16,
            orientation=_orientation(page.tags.valueof(ORIENTATION)),
            icc_profile=_bytes(page.tags.valueof(34675)),
            xmp=_bytes(page.tags.valueof(XMP)),
            iptc=_bytes(page.tags.valueof(IPTC)),
            resolution=_resolution(page.tags),
        )
        try:
            metadata = with_exif(metadata, exif_of_tiff(data))
        except ValueError:
            stated = {tag for tag in _EXIF_TAGS if tag in page.tags}
            if page.description.startswith('{"shape":'):
                stated.discard(DESCRIPTION)
            if stated:
                notes.append("the EXIF tags could not be read and were left out")
    metadata = replace(metadata, warnings=(*notes, *metadata.warnings))
    image = to_image(samples, peak, alpha is not None, metadata)
    if image.alpha is not None and associated:
        straight = torch.where(image.alpha > 0, image.pixels / image.alpha, 0.0)
        note = "colours were divided by the transparency that they were multiplied with"
        metadata = replace(metadata, warnings=(*metadata.warnings, note))
        image = replace(image, pixels=straight, metadata=metadata)
    return image


def write_tiff(image: Image, path: Path) -> list[str]:
    """Write a picture at 8 or 16 bits or as floating point, and return what was lost."""
    metadata = image.metadata
    bits = 8 if metadata.bit_depth <= 8 else 16 if metadata.bit_depth <= 16 else 32
    extra: list[tuple[int, int, int, Any, bool]] = []
    if metadata.orientation != 1:
        extra.append((ORIENTATION, 3, 1, metadata.orientation, True))
    if metadata.xmp:
        extra.append((XMP, 1, len(metadata.xmp), metadata.xmp, True))
    if metadata.iptc:
        extra.append((IPTC, 7, len(metadata.iptc), metadata.iptc, True))
    tifffile.imwrite(
        path,
        from_image(image, bits),
        photometric="minisblack" if image.layout is Layout.GRAY else "rgb",
        planarconfig="contig",
        extrasamples=None if image.alpha is None else ["unassalpha"],
        compression="zlib",
        compressionargs={"level": 1},
        predictor=3 if bits == 32 else 2,
        iccprofile=metadata.icc_profile,
        extratags=extra,
        metadata=None,
        software=False,
        resolution=metadata.resolution,
        resolutionunit=2 if metadata.resolution else None,
    )
    if metadata.exif:
        try:
            append_exif(path, metadata.exif)
        except (ValueError, struct.error):
            return ["the EXIF block could not be written to the TIFF and was left out"]
        if holds_maker_note(metadata.exif):
            return ["the MakerNote of the EXIF block does not survive in TIFF and was left out"]
    return []


def _first_full(tiff: Any) -> tuple[Any, int]:
    """Return the first page that is no reduced picture of another, and its number."""
    if tiff.pages.first.is_reduced:
        for number, page in enumerate(tiff.pages):
            if not page.is_reduced:
                return page, number
    return tiff.pages.first, 0


def _check(path: Path, form: Any, page: Any, data: mmap) -> None:
    """Refuse what tifffile would decode to something else than the picture."""
    start = page.offset + form.tagnosize
    count = struct.unpack(form.tagnoformat, data[page.offset : start])[0]
    records = range(start, start + count * form.tagsize, form.tagsize)
    codes = {struct.unpack(form.byteorder + "H", data[at : at + 2])[0] for at in records}
    if any(code in _LAYOUT_TAGS and code not in page.tags for code in codes):
        raise DecodeError(f"{path}: the file is damaged or cut off: tags are missing")
    photometric = page.photometric
    if photometric == 5:
        raise DecodeError(f"{path}: CMYK pictures are not supported; convert it to RGB first")
    known = photometric in (0, 1, 2, 3) or (photometric == 6 and page.compression in (6, 7))
    fewest = 3 if photometric in (2, 6) else 1
    if not known or not fewest <= page.samplesperpixel <= 8 or page.imagedepth > 1:
        name = getattr(photometric, "name", photometric)
        raise DecodeError(
            f"{path}: TIFF pictures of the kind {name} with {page.samplesperpixel} channels are "
            "not supported; convert it to RGB first"
        )
    if page.dtype is None or page.dtype.kind not in "buf" or isinstance(page.bitspersample, tuple):
        raise DecodeError(
            f"{path}: samples of this type are not supported; convert it to unsigned 16 bits"
        )
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    inside = all(at > 0 and length > 0 and at + length <= len(data) for at, length in segments)
    if len(segments) != math.prod(page.chunked) or not inside:
        raise DecodeError(f"{path}: the file is damaged or cut off: pixels are missing")


def _decoded(page: Any) -> tuple[NDArray[Any], float, list[str]]:
    """Return (H, W, C) samples, their white, and what was changed."""
    planes = page.asarray(squeeze=False)[:, 0]
    samples = np.moveaxis(planes, 0, 2).reshape(*planes.shape[1:3], -1)
    kind, bits = samples.dtype.kind, page.bitspersample
    notes: list[str] = []
    if page.photometric == 3:
        colours = _palette(page.colormap)
        return colours[samples[..., 0]], np.iinfo(colours.dtype).max, notes
    peak = 1 if kind in "bf" else 2**bits - 1
    if kind == "u" and bits > 16:
        samples, peak = (samples / peak).astype(np.float32), 1
        notes.append(f"{bits}-bit integers were read as 32-bit floating point")
    elif kind == "f" and bits > 32:
        notes.append(f"{bits}-bit floating point was read as 32-bit")
    return samples.astype(np.uint8) if kind == "b" else samples, peak, notes


def _palette(colormap: Any) -> NDArray[Any]:
    """Return the (N, 3) colours of a TIFF palette, of 8 bits where they lose nothing by it."""
    colours: NDArray[Any] = np.asarray(colormap, np.uint16).T
    if colours.max() > 255 and not ((colours % 257).any() and (colours % 256).any()):
        colours = colours >> 8
    return colours.astype(np.uint8) if colours.max() < 256 else colours


def _orientation(value: Any) -> int:
    return int(value) if value in range(1, 9) else 1


def _resolution(tags: Any) -> tuple[float, float] | None:
    """Return the dots per inch that the tags state, or None where they have no unit or no sense."""
    inches = _INCHES.get(tags.valueof(296, default=2))
    pairs = [tags.valueof(tag) for tag in (282, 283)]
    whole = all(isinstance(pair, tuple) and len(pair) == 2 and all(pair) for pair in pairs)
    if inches is None or not whole:
        return None
    across, down = (dots / length / inches for dots, length in pairs)
    return across, down


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None
