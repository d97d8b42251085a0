"""Digital Negatives (DNG 1.4): the tags of a file, and writers of mosaics and of linear RGB.

Written samples are integers in sensor order with the orientation as a tag: of 16 bits without
compression, or of fewer bits in lossless JPEG, as cameras write them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import UsageError
from restorekit.image import Image, Layout, Metadata, NoiseProfile
from restorekit.io.exif import IPTC, XMP, append_exif, exif_of_shot
from restorekit.io.ifd import Ifd, read_header, read_ifd, short, write_ifd
from restorekit.ops.color import unpack_bayer

_CFA, _LINEAR_RAW = 32803, 34892
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _SRATIONAL, _DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12
_OPCODES_OF_MOSAIC, _OPCODES_OF_RGB = 51009, 51022
_DAYLIGHT = 21
_DENOMINATOR = 1_000_000
_INSET = 8
_XYZ_TO_SRGB = (3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572)

_TILE = 256

_Tag = tuple[int, int, int, Any, bool]


@dataclass(frozen=True)
class DngTags:
    """Hold what a DNG says about its RAW picture; every field is empty for other files.

    Attributes:
        compression: TIFF number of the compression.
        is_float: whether samples are floating point.
        is_linear: whether the picture is linear RGB and no mosaic.
        noise_profile: pairs S, O with variance = S * signal + O, for all planes or for each.
        color_matrix: XYZ to camera in the light nearest to daylight, calibration included.
        as_shot_neutral: camera RGB of a neutral surface.
        orientation: EXIF orientation 1..8.
        baseline_exposure: stops to add for a normal exposure.
        camera: unique camera model.
        active_size: height and width of the active area.
        opcodes: lists of corrections that a reader shall apply, by tag.
    """

    compression: int | None = None
    is_float: bool = False
    is_linear: bool = False
    noise_profile: tuple[float, ...] = ()
    color_matrix: tuple[float, ...] | None = None
    as_shot_neutral: tuple[float, ...] | None = None
    orientation: int = 1
    baseline_exposure: float = 0.0
    camera: str | None = None
    active_size: tuple[int, int] | None = None
    opcodes: dict[int, bytes] = field(default_factory=dict)

    @property
    def noise(self) -> NoiseProfile | None:
        """Return the mean profile of all planes, or None where it says nothing sensible."""
        if len(self.noise_profile) < 2:
            return None
        shot = float(np.mean(self.noise_profile[0::2]))
        read_variance = float(np.mean(self.noise_profile[1::2]))
        if not (math.isfinite(shot + read_variance) and shot >= 0 and read_variance >= 0):
            return None
        return NoiseProfile(shot, read_variance**0.5) if shot + read_variance > 0 else None


def read_dng_tags(path: Path) -> DngTags:
    """Read the tags of the RAW picture in a DNG, wherever its directories hold them.

    Returns:
        empty tags where the file is no DNG, or a damaged one.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as block:
            directories = list(_directories(block))
    except (ValueError, struct.error):
        return DngTags()
    if not directories or 50706 not in directories[0]:
        return DngTags()
    mosaics = (d for d in directories if _numbers([d], 262) in ([_CFA], [_LINEAR_RAW]))
    main = next(mosaics, directories[0])
    found = [main, directories[0]]
    active = _numbers([main], 50829)
    height, width = _numbers([main], 257), _numbers([main], 256)
    if len(active) == 4:
        height, width = [active[2] - active[0]], [active[3] - active[1]]
    compression = _numbers([main], 259)
    camera = directories[0].get(50708)
    return DngTags(
        compression=int(compression[0]) if compression else None,
        is_float=_numbers([main], 339)[:1] == [3.0],
        is_linear=_numbers([main], 262) == [_LINEAR_RAW],
        noise_profile=tuple(_numbers(found, 51041)),
        color_matrix=_color_matrix(found),
        as_shot_neutral=tuple(_numbers(found, 50728)) or None,
        orientation=int((_numbers([directories[0], main], 274) or [1])[0]),
        baseline_exposure=(_numbers(found, 50730) or [0.0])[0],
        camera=camera.text() if camera else None,
        active_size=(int(height[0]), int(width[0])) if height and width else None,
        opcodes={t: main[t].data for t in (_OPCODES_OF_MOSAIC, _OPCODES_OF_RGB) if t in main},
    )


def write_cfa_dng(image: Image, path: Path, *, bits: int = 16) -> None:
    """Write the planes of a Bayer sensor as a DNG mosaic.

    Black and white levels are set so that values below black and above white stay as they are.
    Corrections of a source DNG, which LibRaw does not apply, go along where the size is the same.

    Args:
        image: BAYER, LINEAR; without a colour matrix, sRGB primaries are assumed.
        path: file to write; an existing one is overwritten.
        bits: of a sample, 8..16.

    Raises:
        UsageError: the picture is no BAYER picture.
        OSError: the file cannot be written.
    """
    metadata = image.metadata
    if image.layout is not Layout.BAYER:
        raise UsageError("only a RAW picture with a Bayer mosaic can be written as a CFA DNG")
    lowest = min(-1 / 32, float(image.pixels.min()))
    samples, black, white = _samples(unpack_bayer(image.pixels, image.cfa), lowest, 2**bits - 1)
    height, width = samples.shape
    inset = _INSET if min(height, width) >= 8 * _INSET else 0
    tags: list[_Tag] = [
        (33421, _SHORT, 2, (2, 2), True),
        (33422, _BYTE, 4, bytes("RGB".index(color) for color in image.cfa), True),
        (50710, _BYTE, 3, bytes((0, 1, 2)), True),
        (50711, _SHORT, 1, 1, True),
        (50713, _SHORT, 2, (1, 1), True),
        (50714, _LONG, 1, black, True),
        (50717, _LONG, 1, white, True),
        (50719, _LONG, 2, (inset, inset), True),
        (50720, _LONG, 2, (width - 2 * inset, height - 2 * inset), True),
    ]
    opcodes = (_OPCODES_OF_MOSAIC, _OPCODES_OF_RGB)
    _write(
        path, samples, _CFA, tags, metadata, opcodes, {} if bits == 16 else _lossless(height, width)
    )
    _state_planar_configuration(path)


def write_linear_dng(image: Image, path: Path) -> None:
    """Write an RGB picture as a linear DNG.

    Values below black are cut off: readers, LibRaw among them, scale a linear DNG wrongly when its
    black level is not 0.

    Args:
        image: RGB; encoded pictures are made linear. Without a colour matrix, sRGB primaries are
            assumed.
        path: file to write; an existing one is overwritten.

    Raises:
        UsageError: the picture is no RGB picture.
        OSError: the file cannot be written.
    """
    if image.layout is not Layout.RGB:
        raise UsageError("only an RGB picture can be written as a linear DNG")
    samples, black, white = _samples(image.to_linear().pixels.permute(1, 2, 0), 0.0, 65535)
    height, width, _ = samples.shape
    tags: list[_Tag] = [
        (50713, _SHORT, 2, (1, 1), True),
        (50714, _LONG, 3, (black,) * 3, True),
        (50717, _LONG, 3, (white,) * 3, True),
        (50719, _LONG, 2, (0, 0), True),
        (50720, _LONG, 2, (width, height), True),
    ]
    _write(path, samples, _LINEAR_RAW, tags, image.metadata, (_OPCODES_OF_RGB,), {})


def _directories(block: mmap) -> Iterator[Ifd]:
    """Yield the directories of a TIFF file and the SubIFDs of each."""
    order, offset = read_header(block)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        ifd, offset = read_ifd(block, offset, order)
        yield ifd
        for child in map(int, _numbers([ifd], 330)):
            if child not in seen:
                seen.add(child)
                with suppress(ValueError):
                    yield read_ifd(block, child, order)[0]


def _numbers(directories: Sequence[Ifd], tag: int) -> list[float]:
    """Return the values of a tag in the first directory that has it, or nothing."""
    return next((d[tag].numbers() for d in directories if tag in d), [])


def _color_matrix(directories: Sequence[Ifd]) -> tuple[float, ...] | None:
    """Return the matrix from XYZ to camera that belongs to daylight."""
    second = _numbers(directories, 50779) == [_DAYLIGHT] and len(_numbers(directories, 50722)) == 9
    matrix = _numbers(directories, 50722 if second else 50721)
    if len(matrix) != 9 or not any(matrix):
        return None
    calibration = np.reshape(_numbers(directories, 50724 if second else 50723) or np.eye(3), (3, 3))
    analog = np.diag(_numbers(directories, 50727) or np.ones(3))
    calibrated = analog @ calibration @ np.reshape(matrix, (3, 3))
    return tuple(calibrated.ravel().tolist())


def _samples(values: Tensor, lowest: float, peak: int) -> tuple[NDArray[np.uint16], int, int]:
    """Return linear values as integers up to a peak, and the levels of black and white."""
    low = max(lowest, -1.0)
    high = max(1.0, min(float(values.max()), 2.0))
    scale = peak / (high - low)
    black, white = round(-low * scale), round((1 - low) * scale)
    integers = torch.mul(values, white - black).add_(black).round_().clamp_(0, peak)
    return np.ascontiguousarray(integers.numpy(), np.uint16), black, white


def _write(
    path: Path,
    samples: NDArray[np.uint16],
    photometric: int,
    tags: list[_Tag],
    metadata: Metadata,
    opcodes: tuple[int, ...],
    compression: dict[str, Any],
) -> None:
    height, width = samples.shape[:2]
    source = _source_tags(metadata)
    if source.active_size != (height, width):
        opcodes = ()
    named = " ".join(filter(None, (metadata.make, metadata.model)))
    camera = source.camera or named or "restorekit"
    neutral = [1 / gain for gain in metadata.white_balance or (1.0, 1.0, 1.0)]
    tags += [
        (274, _SHORT, 1, metadata.orientation, True),
        (50706, _BYTE, 4, bytes((1, 4, 0, 0)), True),
        (50707, _BYTE, 4, bytes((1, 1, 0, 0)), True),
        _text(50708, camera),
        _rationals(50721, metadata.color_matrix or _XYZ_TO_SRGB),
        _rationals(50728, neutral),
        _rationals(50730, [source.baseline_exposure]),
        (50778, _SHORT, 1, _DAYLIGHT, True),
        (50829, _LONG, 4, (0, 0, height, width), True),
        *(_text(tag, text) for tag, text in _names(metadata, camera)),
        *(
            (tag, _UNDEFINED, len(data), data, True)
            for tag, data in source.opcodes.items()
            if tag in opcodes
        ),
    ]
    if metadata.noise is not None:
        profile = (metadata.noise.shot, metadata.noise.read**2)
        tags.append((51041, _DOUBLE, 2, profile, True))
    if metadata.xmp:
        tags.append((XMP, _BYTE, len(metadata.xmp), metadata.xmp, True))
    if metadata.iptc:
        tags.append((IPTC, _UNDEFINED, len(metadata.iptc), metadata.iptc, True))
    tifffile.imwrite(
        path,
        samples,
        photometric=photometric,
        planarconfig="contig",
        subfiletype=0,
        extratags=tags,
        metadata=None,
        software="restorekit",
        **compression,
    )
    exif = metadata.exif or exif_of_shot(metadata.iso, metadata.exposure_time)
    if exif:
        append_exif(path, exif)


def _state_planar_configuration(path: Path) -> None:
    """Add the tag that tifffile leaves out for one sample a pixel, though DNG asks for it."""
    with path.open("r+b") as file:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as written:
            order, offset = read_header(written)
            ifd, following = read_ifd(written, offset, order)
        end = file.seek(0, 2)
        end += file.write(b"\0" * (end % 2))
        file.write(write_ifd(ifd | {284: short(1)}, end, order, following))
        file.seek(4)
        file.write(struct.pack(order + "I", end))


def _lossless(height: int, width: int) -> dict[str, Any]:
    """Return settings of tiles no larger than the picture, which LibRaw would decode wrongly."""
    return {
        "compression": "jpeg",
        "compressionargs": {"lossless": True, "bitspersample": 16},
        "tile": tuple(min(_TILE, max(side // 16 * 16, 16)) for side in (height, width)),
    }


def _source_tags(metadata: Metadata) -> DngTags:
    if metadata.path is None or not metadata.path.is_file():
        return DngTags()
    return read_dng_tags(metadata.path)


def _names(metadata: Metadata, camera: str) -> list[tuple[int, str]]:
    return [(271, metadata.make or camera.split()[0]), (272, metadata.model or camera)]


def _text(tag: int, text: str) -> _Tag:
    data = text.encode("ascii", "replace") + b"\0"
    return tag, _ASCII, len(data), data, True


def _rationals(tag: int, values: Sequence[float]) -> _Tag:
    """Return a tag of fractions; only the neutral, which has no sign, is unsigned."""
    kind = _RATIONAL if tag == 50728 else _SRATIONAL
    pairs = [number for value in values for number in (round(value * _DENOMINATOR), _DENOMINATOR)]
    return tag, kind, len(values), tuple(pairs), True
