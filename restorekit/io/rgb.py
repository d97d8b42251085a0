"""Finished pictures: PNG, JPEG, TIFF, WebP, AVIF and the 8-bit formats that Pillow knows.

PNG is coded by imagecodecs and TIFF by tifffile, which keep 16 bits and more. Pillow reads the
rest, samples of AVIF and 16 bits of PGM and PPM apart, and imageio writes it. Pixels stay in stored
order, with the orientation in the metadata, and count as sRGB-encoded.
"""

from __future__ import annotations

import math
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import PIL.Image
import PIL.ImageFile

from restorekit.errors import DecodeError
from restorekit.image import Image, Layout, Metadata
from restorekit.io.avif import avif_colours, avif_samples
from restorekit.io.checks import check_size, why_unread
from restorekit.io.exif import exif_of_shot
from restorekit.io.metadata import carried, with_exif
from restorekit.io.png import SIGNATURE, lost_chunks, read_png, write_png
from restorekit.io.samples import FIRST_ONLY, from_image, to_image
from restorekit.io.tiff import SIGNATURES, read_tiff, write_tiff
from restorekit.ops.orientation import upright

READ_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm")
    + (".pcx", ".qoi", ".avif", ".jfif", ".jpe", ".pbm")
)

_PILLOW_FORMATS = ("JPEG", "WEBP", "GIF", "BMP", "PPM", "PCX", "QOI", "AVIF")
_PILLOW_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
}
_JPEG_EXIF_LIMIT, _JPEG_XMP_LIMIT, _JPEG_IPTC_LIMIT = 65533, 65504, 65506
_IPTC_RESOURCE = 0x0404
_EXTENDED_XMP = re.compile(rb"\s[\w.-]+:HasExtendedXMP\s*=\s*(?:\"[^\"]*\"|'[^']*')")

_pillow_settings = threading.Lock()


def read_rgb(path: Path, *, max_megapixels: float = 300.0) -> Image:
    """Read a finished picture by its content, whatever its suffix.

    Returns:
        RGB or GRAY, sRGB-encoded in [0, 1]; floating point of a TIFF is as stored.

    Raises:
        DecodeError: a kind of picture that is not supported, or too large.
        Exception: whatever a codec raises on a damaged file.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head == SIGNATURE:
        return read_png(path, max_megapixels)
    if head.startswith(SIGNATURES):
        return read_tiff(path, max_megapixels)
    return _read_pillow(path, max_megapixels)


def write_rgb(image: Image, path: Path, format: str, *, strip: str, quality: int) -> list[str]:
    """Write an RGB or GRAY picture as png, jpg, tiff, webp, bmp or ppm; return what was lost.

    Depth is that of the metadata, as far as the format can hold it. Linear pictures are encoded.
    """
    grey = image.layout is Layout.GRAY and format != "webp"
    metadata = carried(image.metadata, strip, grey=grey, size=(image.width, image.height))
    image = replace(image.to_srgb(), metadata=replace(metadata, warnings=()))
    notes = list(metadata.warnings)
    if metadata.iptc and format not in ("jpg", "tiff"):
        notes.append("IPTC records are kept by JPEG and TIFF only and were left out")
    if format == "png":
        return notes + write_png(image, path)
    notes += lost_chunks(metadata)
    if format == "tiff":
        notes += write_tiff(image, path)
    else:
        notes += _write_pillow(image, path, format, quality)
    return notes


def _read_pillow(path: Path, max_megapixels: float) -> Image:
    with _open_pillow(path) as picture:
        check_size(path, picture.width, picture.height, max_megapixels)
        deep = picture.format == "PPM" and _pnm_white(picture) > 255
        if deep and picture.tile[0].codec_name != "ppm_plain":
            return _read_deep_pnm(path, picture)
        if picture.mode not in _PILLOW_MODES or deep:
            remedy = "PNG or TIFF" if deep or picture.mode.startswith(("I", "F")) else "RGB"
            raise DecodeError(
                f"{path}: {picture.format} pictures of the kind {picture.mode} are not supported; "
                f"convert it to {remedy} first"
            )
        mode = _PILLOW_MODES[picture.mode]
        if "transparency" in picture.info and not mode.endswith("A"):
            mode += "A"
        if picture.format in ("JPEG", "MPO") and not _jpeg_ends(path):
            raise DecodeError(f"{path}: the file is damaged or cut off: its end is missing")
        animated = getattr(picture, "is_animated", False)
        avif = path.read_bytes() if picture.format == "AVIF" else b""
        if avif and not animated:  # imagecodecs crashes on the first of many
            samples, white = avif_samples(avif)
        else:
            samples, white = np.atleast_3d(np.asarray(picture.convert(mode))), 255
        icc_profile, notes = picture.info.get("icc_profile"), [FIRST_ONLY] if animated else []
        xmp = picture.info.get("xmp")
        if xmp and _EXTENDED_XMP.search(xmp):
            xmp = _EXTENDED_XMP.sub(b"", xmp)
            notes.append("the extended part of the XMP packet was left out")
        metadata = Metadata(
            path=path,
            bit_depth=8 * samples.itemsize,
            png_chunks=() if icc_profile else avif_colours(avif),
            icc_profile=icc_profile,
            xmp=xmp,
            iptc=_iptc(picture),
            resolution=_resolution(picture),
            warnings=tuple(notes),
        )
        metadata = with_exif(metadata, picture.info.get("exif"))
    return to_image(samples, white, samples.shape[2] in (2, 4), metadata)


def _pnm_white(picture: PIL.ImageFile.ImageFile) -> int:
    """Return the number that stands for white in a PGM or PPM file."""
    args = picture.tile[0].args
    return 65535 if args == "I;16B" else int(args[1]) if isinstance(args, tuple) else 255


def _read_deep_pnm(path: Path, picture: PIL.ImageFile.ImageFile) -> Image:
    """Read the 16-bit samples of a PGM or PPM file, of which Pillow keeps 8 for colours."""
    shape = (picture.height, picture.width, len(picture.getbands()))
    samples = np.fromfile(path, ">u2", math.prod(shape), offset=picture.tile[0].offset)
    white = _pnm_white(picture)
    return to_image(
        samples.reshape(shape).clip(max=white), white, False, Metadata(path=path, bit_depth=16)
    )


@contextmanager
def _open_pillow(path: Path) -> Iterator[PIL.ImageFile.ImageFile]:
    """Open without Pillow's own limit of pixels and its warnings, for check_size follows."""
    with _pillow_settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            picture = PIL.Image.open(path, formats=_PILLOW_FORMATS)
        except PIL.UnidentifiedImageError:
            raise DecodeError(f"{path}: {why_unread(path)}") from None
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
    with picture:
        yield picture


def _resolution(picture: PIL.ImageFile.ImageFile) -> tuple[float, float] | None:
    """Return the dots per inch that a JPEG or BMP file states outside of its EXIF block."""
    stated = picture.format == "BMP" or picture.info.get("jfif_unit") in (1, 2)
    across, down = picture.info.get("dpi", (0, 0)) if stated else (0, 0)
    return (float(across), float(down)) if across > 0 and down > 0 else None


def _iptc(picture: PIL.ImageFile.ImageFile) -> bytes | None:
    """Return the IPTC records of a JPEG file, which lie among the resources of Photoshop."""
    resources = picture.info.get("photoshop")
    records = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return records if isinstance(records, bytes) and records else None


def _app13(iptc: bytes) -> bytes:
    """Return the JPEG segment of IPTC records (Adobe, Photoshop File Formats: image resources)."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc
    body = b"Photoshop 3.0\0" + resource + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body


def _jpeg_ends(path: Path) -> bool:
    """Say whether the first picture of a JPEG file has its end marker.

    Files whose rest is zeros, as interrupted transfers leave them, decode without an error.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
            at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
        return data.find(b"\xff\xd9", at) >= 0


def _write_pillow(image: Image, path: Path, format: str, quality: int) -> list[str]:
    metadata, notes = image.metadata, []
    name = {"jpg": "JPEG", "webp": "WebP", "bmp": "BMP", "ppm": "PPM"}[format]
    if metadata.bit_depth > 8:
        cut = ", values outside 0..1 were cut off" if metadata.bit_depth > 16 else ""
        notes.append(f"{name} holds 8 bits a sample: the picture had {metadata.bit_depth}{cut}")
    if image.alpha is not None and format != "webp":
        notes.append(f"{name} holds no transparency: it was left out")
    exif, xmp, settings = metadata.exif, metadata.xmp, dict[str, Any]()
    if format == "jpg":
        settings = {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
        if exif and len(exif) + 6 > _JPEG_EXIF_LIMIT:
            notes.append("the EXIF block is too long for JPEG and was left out")
            exif = exif_of_shot(metadata.iso, metadata.exposure_time, metadata.orientation)
        if xmp and len(xmp) > _JPEG_XMP_LIMIT:
            notes.append("the XMP packet is too long for JPEG and was left out")
            xmp = None
        if metadata.iptc and len(metadata.iptc) <= _JPEG_IPTC_LIMIT:
            settings["extra"] = _app13(metadata.iptc)
        elif metadata.iptc:
            notes.append("the IPTC records are too long for JPEG and were left out")
    elif format == "webp":
        settings = {"quality": quality, "exact": True}
    elif exif or xmp or metadata.icc_profile:
        notes.append(f"{name} holds no EXIF, XMP and ICC profile: they were left out")
    if format in ("jpg", "webp"):
        carried_on = {"icc_profile": metadata.icc_profile, "xmp": xmp}
        settings |= {key: value for key, value in carried_on.items() if value}
        if exif:
            settings["exif"] = b"Exif\0\0" + exif
    if format in ("bmp", "ppm"):
        image = image.with_pixels(upright(image.pixels, metadata.orientation))
    if format in ("jpg", "bmp") and metadata.resolution and max(metadata.resolution) < 65535:
        settings["dpi"] = metadata.resolution
    samples = from_image(image, 8, alpha=format == "webp")
    iio.imwrite(path, samples, plugin="pillow", extension=f".{format}", **settings)
    return notes
