"""RAW files through LibRaw: the Bayer mosaic as planes, and planes developed into a picture.

Every rendering uses the same fixed settings, so that exposure depends on the file alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import rawpy
import torch
from numpy.typing import NDArray
from PIL import ImageCms

from restorekit.errors import DecodeError, UsageError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io.checks import check_dng, check_file, check_size
from restorekit.io.dng import DngTags, read_dng_tags
from restorekit.io.exif import exif_of_tiff, packets_of_tiff
from restorekit.io.metadata import with_exif
from restorekit.ops.color import bayer_offsets, linear_to_srgb

_SUFFIXES = """
.3fr .ari .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw
.orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f
"""
RAW_SUFFIXES = frozenset(_SUFFIXES.split())

_RAW_STARTS = (b"II", b"MM", b"FUJIFILM", b"\0\0\0\x18ftypcrx")
_LEAST_BYTES_PER_PIXEL = 0.05
_WHITE = 65535
_BAND = 64
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)

_SETTINGS: dict[str, Any] = {
    "no_auto_bright": True,
    "adjust_maximum_thr": 0.0,
    "gamma": (1, 1),
    "output_bps": 16,
    "highlight_mode": rawpy.HighlightMode.Ignore,
    "demosaic_algorithm": rawpy.DemosaicAlgorithm.AHD,
}
_SRGB_SETTINGS = _SETTINGS | {"use_camera_wb": True, "output_color": rawpy.ColorSpace.sRGB}


def read_raw(path: Path, *, max_megapixels: float = 300.0) -> Image:
    """Read a RAW file.

    A Bayer mosaic comes as BAYER planes of the active area: LINEAR, black of each colour
    subtracted, divided by white less black, values below black kept. Its orientation is still to
    be applied, and the last row or column of an odd side is left to develop. Any other file
    (X-Trans, linear DNG, no mosaic) comes developed: RGB or GRAY, sRGB-encoded, upright.

    Args:
        path: file to read.
        max_megapixels: larger pictures are refused before they are decoded.

    Raises:
        DecodeError: the file is missing, damaged, too large or of a kind that is not supported.
    """
    path = Path(path)
    with _opened(path, max_megapixels) as (raw, tags):
        metadata = _metadata(path, raw, tags)
        cfa = _cfa(raw)
        if cfa is not None:
            return _read_bayer(raw, cfa, metadata)
        return _rendered(raw.postprocess(**_SRGB_SETTINGS), metadata)


def plain_rendering(path: Path) -> Image:
    """Develop the untouched file, as develop does with its planes.

    Raises:
        DecodeError: the file cannot be read.
    """
    path = Path(path)
    with _opened(path, math.inf) as (raw, tags):
        return _rendered(raw.postprocess(**_SRGB_SETTINGS), _metadata(path, raw, tags))


def develop(image: Image) -> Image:
    """Develop BAYER planes with the colour of the RAW file that they came from.

    Args:
        image: BAYER picture of the full size that read_raw gave; metadata.path names the file.

    Returns:
        RGB, sRGB-encoded, 16 bits, upright, with an sRGB profile.

    Raises:
        UsageError: the picture is no BAYER picture of the full size with a file.
        DecodeError: the file cannot be read any more.
    """
    with _opened(_source(image), math.inf) as (raw, _):
        white = _put_planes(raw, image)
        return _rendered(raw.postprocess(**_SRGB_SETTINGS, **_levels(white)), image.metadata)


def developed_size(image: Image) -> tuple[int, int]:
    """Return the width and height of what develop makes of BAYER planes.

    Raises:
        UsageError: the picture is no BAYER picture with a file.
        DecodeError: the file cannot be read any more.
    """
    with _opened(_source(image), math.inf) as (raw, _):
        sizes = raw.sizes
    width = int(sizes.width * max(sizes.pixel_aspect, 1) + 0.5)
    height = int(sizes.height / min(sizes.pixel_aspect, 1) + 0.5)
    return (height, width) if sizes.flip & 4 else (width, height)


def demosaic(image: Image) -> Image:
    """Interpolate BAYER planes to the RGB of the camera, without white balance or rotation.

    Args:
        image: as for develop.

    Returns:
        RGB, LINEAR, black 0 and white 1 of the sensor; orientation and colour matrix are kept.

    Raises:
        UsageError: the picture is no BAYER picture of the full size with a file.
        DecodeError: the file cannot be read any more.
    """
    red, green, blue = image.metadata.white_balance or (1.0, 1.0, 1.0)
    with _opened(_source(image), math.inf) as (raw, _):
        white = _put_planes(raw, image)
        samples = raw.postprocess(
            **_SETTINGS,
            **_levels(white),
            user_wb=[red, green, blue, green],
            output_color=rawpy.ColorSpace.raw,
            user_flip=0,
        )
    pixels = torch.empty(3, *samples.shape[:2])
    brightest = max(red, green, blue)
    for channel, gain in enumerate((red, green, blue)):
        plane = torch.from_numpy(samples[..., channel].astype(np.float32))
        torch.mul(plane, brightest / gain / _WHITE, out=pixels[channel])
    metadata = replace(image.metadata, cfa=None, black_level=(), white_level=None, noise=None)
    return Image(pixels, Transfer.LINEAR, Layout.RGB, metadata)


def orientation_of_flip(flip: int) -> int:
    """Return the EXIF orientation 1..8 of LibRaw's flip 0..7.

    In a flip, bit 0 mirrors left to right, bit 1 top to bottom, and bit 2 then swaps both sides.
    """
    return _ORIENTATIONS[flip]


@cache
def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB, the same bytes at every call."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


@contextmanager
def _opened(path: Path, max_megapixels: float) -> Iterator[tuple[Any, DngTags]]:
    """Open and decode a RAW file after the checks that need no decoding."""
    check_file(path)
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix.lower() not in RAW_SUFFIXES and not head.startswith(_RAW_STARTS):
        raise DecodeError(
            f"{path}: there is no RAW header; a bare mosaic must be converted to DNG first"
        )
    tags = read_dng_tags(path)
    check_dng(path, tags)
    try:
        with rawpy.imread(str(path)) as raw:
            _refuse_size(path, raw, max_megapixels)
            raw.unpack()
            _refuse_decoded(path, raw)
            yield raw, tags
    except rawpy.LibRawError as error:
        message = " ".join(a.decode() if isinstance(a, bytes) else str(a) for a in error.args)
        raise DecodeError(
            f"{path}: LibRaw cannot decode this file ({message}); it is damaged or of a kind that "
            "LibRaw does not know, try the DNG converter of Adobe"
        ) from error


def _refuse_size(path: Path, raw: Any, max_megapixels: float) -> None:
    width, height = raw.sizes.raw_width, raw.sizes.raw_height
    check_size(path, width, height, max_megapixels)
    size, pixels = path.stat().st_size, width * height
    if size < _LEAST_BYTES_PER_PIXEL * pixels:
        raise DecodeError(
            f"{path}: {size} bytes cannot hold {pixels / 1e6:.1f} megapixels; the file is damaged "
            "or cut off, copy it from the card again"
        )


def _refuse_decoded(path: Path, raw: Any) -> None:
    if raw.num_colors != 1 and (raw.num_colors == 4 or set(raw.color_desc.decode()) - set("RGB")):
        raise DecodeError(
            f"{path}: sensors with four colours ({raw.color_desc.decode()}) are not supported; "
            "develop it elsewhere and restore the RGB picture"
        )
    pattern = raw.raw_pattern
    if pattern is not None and pattern.size == 4 and not {0, 1, 2} <= set(pattern.flat):
        raise DecodeError(
            f"{path}: its colour filter is neither Bayer nor X-Trans; develop it elsewhere and "
            "restore the RGB picture"
        )
    visible = raw.raw_image_visible[..., :3] if raw.raw_image.ndim == 3 else raw.raw_image_visible
    if visible.size == 0 or visible.min() == visible.max():
        raise DecodeError(
            f"{path}: every pixel has the same value; the file is damaged, copy it from the card "
            "again"
        )
    if raw.raw_image.ndim == 2 and raw.white_level <= max(raw.black_level_per_channel):
        raise DecodeError(f"{path}: white is not above black; the levels in the file are damaged")


def _cfa(raw: Any) -> str | None:
    """Return the Bayer pattern of the active area row by row, or None for any other layout."""
    if raw.raw_pattern is None or raw.raw_pattern.shape != (2, 2):
        return None
    cfa = "".join("RGBG"[color] for color in raw.raw_colors_visible[:2, :2].flat)
    return cfa if sorted(cfa) == ["B", "G", "G", "R"] else None


def _blacks(raw: Any, cfa: str) -> list[float]:
    """Return the black of R, G1, G2, B in file units."""
    cell, blacks = raw.raw_colors_visible[:2, :2], raw.black_level_per_channel
    return [float(blacks[cell[offset]]) for offset in bayer_offsets(cfa)]


def _metadata(path: Path, raw: Any, tags: DngTags) -> Metadata:
    metadata = Metadata(path=path, bit_depth=16)
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as block:
            metadata = with_exif(metadata, exif_of_tiff(block))
            xmp, iptc = packets_of_tiff(block)
            metadata = replace(metadata, xmp=xmp, iptc=iptc)
    except (ValueError, struct.error):
        warning = "EXIF of this kind of RAW file cannot be read and was left out"
        metadata = replace(metadata, warnings=(*metadata.warnings, warning))
    red, green, blue, _ = raw.camera_whitebalance
    balanced = min(red, green, blue) > 0
    if not balanced and raw.num_colors > 1:
        warning = "its white balance cannot be read, so that its colours may be off"
        metadata = replace(metadata, warnings=(*metadata.warnings, warning))
    matrix = tags.color_matrix or tuple(map(float, raw.rgb_xyz_matrix[:3].flat))
    shot = raw.other if raw.other.iso_speed > 0 else None
    return replace(
        metadata,
        orientation=orientation_of_flip(raw.sizes.flip),
        white_balance=(red / green, 1.0, blue / green) if balanced else None,
        color_matrix=matrix if any(matrix) else None,
        iso=metadata.iso or (shot and shot.iso_speed) or None,
        exposure_time=metadata.exposure_time or (shot and shot.shutter_speed) or None,
        f_number=metadata.f_number or (shot and shot.aperture) or None,
        noise=tags.noise,
    )


def _read_bayer(raw: Any, cfa: str, metadata: Metadata) -> Image:
    mosaic, blacks, white = raw.raw_image_visible, _blacks(raw, cfa), raw.white_level
    height, width = mosaic.shape[0] // 2 * 2, mosaic.shape[1] // 2 * 2
    planes = np.empty((4, height // 2, width // 2), np.float32)
    for plane, (row, column), black in zip(planes, bayer_offsets(cfa), blacks, strict=True):
        np.subtract(mosaic[row:height:2, column:width:2], black, out=plane, dtype=np.float32)
        plane /= white - black
    metadata = replace(metadata, cfa=cfa, black_level=tuple(blacks), white_level=float(white))
    return Image(torch.from_numpy(planes), Transfer.LINEAR, Layout.BAYER, metadata)


def _source(image: Image) -> Path:
    path = image.metadata.path
    if image.layout is not Layout.BAYER or path is None:
        raise UsageError("only the planes of a RAW file can be developed")
    return path


def _put_planes(raw: Any, image: Image) -> int:
    """Put planes into the mosaic, black 0, as fine as 16 bits allow, and return their white.

    Samples are a whole multiple of the file's own, so that untouched planes lose nothing.
    """
    path, cfa = image.metadata.path, _cfa(raw)
    if cfa is None or image.metadata.cfa != cfa:
        raise UsageError(f"{path}: the planes did not come from this file")
    mosaic, blacks, white = raw.raw_image_visible, _blacks(raw, cfa), raw.white_level
    height, width = mosaic.shape[0] // 2, mosaic.shape[1] // 2
    if image.pixels.shape != (4, height, width):
        raise UsageError(
            f"{path}: a RAW picture is developed whole, with planes of {width} x {height}, not "
            f"{image.width} x {image.height}; crop the developed picture"
        )
    lowest = min(blacks)
    factor = max(1, int(_WHITE // (max(white, int(mosaic.max())) - lowest)))
    planes = zip(image.pixels.numpy(), bayer_offsets(cfa), blacks, strict=True)
    for plane, (row, column), black in planes:
        cells = mosaic[row::2, column::2]
        samples = np.subtract(cells, black, dtype=np.float32)
        np.multiply(plane, white - black, out=samples[:height, :width])
        samples *= factor
        cells[:] = np.rint(samples, out=samples).clip(0, _WHITE, out=samples)
    return int(factor * (white - lowest))


def _levels(white: int) -> dict[str, Any]:
    return {"user_black": 0, "user_cblack": [0, 0, 0, 0], "user_sat": white}


@cache
def _srgb_curve() -> NDArray[np.float32]:
    """Return the sRGB encoding of every 16-bit sample."""
    curve: NDArray[np.float32] = linear_to_srgb(torch.arange(_WHITE + 1) / _WHITE).numpy()
    return curve


def _rendered(samples: NDArray[np.uint16], metadata: Metadata) -> Image:
    """Return the sRGB-encoded picture of linear (H, W, C) samples that LibRaw turned upright.

    The XMP packet stays behind: what it says of the development of the RAW file would be done to
    the developed picture once more.
    """
    planes = np.empty((samples.shape[2], *samples.shape[:2]), np.float32)
    for start in range(0, planes.shape[1], _BAND):
        for channel, plane in enumerate(planes[:, start : start + _BAND]):
            band = samples[start : start + _BAND, :, channel]
            np.take(_srgb_curve(), band, out=plane, mode="clip")
    layout = Layout.GRAY if len(planes) == 1 else Layout.RGB
    metadata = replace(
        metadata,
        black_level=(),
        white_level=None,
        cfa=None,
        white_balance=None,
        color_matrix=None,
        noise=None,
        orientation=1,
        bit_depth=16,
        xmp=None,
        icc_profile=srgb_profile() if layout is Layout.RGB else None,
    )
    return Image(torch.from_numpy(planes), Transfer.SRGB, layout, metadata)
