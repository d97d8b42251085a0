import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from restorekit.errors import DecodeError, OutputError, UsageError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io import is_image_path, is_raw_path, read_image, write_image
from restorekit.ops.color import linear_to_srgb

Array = NDArray[Any]
PER_EXAMPLE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(height: int = 64, width: int = 96) -> Array:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (rows * 255 // height, columns * 255 // width, (rows + columns) % 256)
    return np.stack(channels, -1).astype(np.uint8)


def samples(image: Image, peak: int) -> Array:
    """Return (H, W, C) integers, alpha last, without restorekit's own rounding."""
    planes = image.pixels if image.alpha is None else torch.cat((image.pixels, image.alpha))
    exact = planes.double().numpy().transpose(1, 2, 0) * peak
    assert np.abs(exact - np.rint(exact)).max() < 0.01
    whole: Array = np.rint(exact).astype(np.int64)
    return whole


def picture(*, bits: int = 8, alpha: bool = False, layout: Layout = Layout.RGB) -> Image:
    values = torch.from_numpy(smooth().transpose(2, 0, 1) / np.float32(255))
    pixels = values if layout is Layout.RGB else values[:1]
    metadata = Metadata(bit_depth=bits)
    return Image(pixels, Transfer.SRGB, layout, metadata, values[1:2] if alpha else None)


def png(depth: int, colour: int, rows: bytes, size: tuple[int, int], *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encoded(array: Array, format: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, format, **settings)
    return stream.getvalue()


# Bit-identical round trips


@settings(max_examples=80, deadline=None, suppress_health_check=PER_EXAMPLE)
@given(st.data())
def test_integers_pass_unchanged(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".png", ".tif"]))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    channels = data.draw(st.integers(1, 4))
    shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)), channels)
    array = data.draw(hnp.arrays(dtype, shape))
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".png":
        source.write_bytes(imagecodecs.png_encode(array[..., 0] if channels == 1 else array))
    else:
        grey, extra = channels < 3, ["unassalpha"] if channels in (2, 4) else None
        kind = "minisblack" if grey else "rgb"
        contiguous = "contig" if channels > 1 else None
        tifffile.imwrite(
            source, array, photometric=kind, planarconfig=contiguous, extrasamples=extra
        )
    image = read_image(source)
    assert image.layout is (Layout.GRAY if channels < 3 else Layout.RGB)
    assert (image.alpha is not None) == (channels in (2, 4))
    assert image.metadata.bit_depth == 8 * array.itemsize
    assert image.metadata.path == source
    assert write_image(image, target) == []
    with_imread = imagecodecs.imread if suffix == ".png" else tifffile.imread
    again = with_imread(target)
    assert again.dtype == dtype
    assert np.array_equal(again.reshape(shape), array)


def test_all_65536_values_survive(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(ramp))
    image = read_image(tmp_path / "a.png")
    for name in ("b.png", "b.tif"):
        write_image(image, tmp_path / name)
        assert np.array_equal(samples(read_image(tmp_path / name), 65535)[..., 0], ramp)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_floating_point_tiff_passes_unchanged(tmp_path: Path, channels: int) -> None:
    array = np.random.default_rng(0).normal(0, 40, (9, 11, channels)).astype(np.float32)
    array[0, :4, 0] = [np.inf, -np.inf, np.nan, -0.0]
    extra = ["unassalpha"] if channels in (2, 4) else None
    kind = "minisblack" if channels < 3 else "rgb"
    contiguous = "contig" if channels > 1 else None
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric=kind, planarconfig=contiguous, extrasamples=extra
    )
    image = read_image(tmp_path / "a.tif")
    assert image.metadata.bit_depth == 32
    assert write_image(image, tmp_path / "b.tif") == []
    again = tifffile.imread(tmp_path / "b.tif").reshape(array.shape)
    assert again.tobytes() == array.tobytes()


def test_a_very_wide_picture(tmp_path: Path) -> None:
    array = noise(2, 200_000, 3, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array, level=0))
    write_image(read_image(tmp_path / "a.png"), tmp_path / "b.png")
    assert np.array_equal(imagecodecs.imread(tmp_path / "b.png"), array)


# Kinds of PNG


@pytest.mark.parametrize(
    ("data", "expected", "peak"),
    [
        (png(1, 0, b"\0\xa0", (3, 1)), [[255], [0], [255]], 255),
        (png(2, 0, b"\0\x1b", (4, 1)), [[0], [85], [170], [255]], 255),
        (png(16, 0, b"\0\1\2\3\4", (2, 1)), [[0x102], [0x304]], 65535),
        (
            png(2, 0, b"\0\x10", (2, 1), chunk(b"tRNS", b"\0\1")),
            [[0, 255], [85, 0]],
            255,
        ),
        (
            png(2, 3, b"\0\x10", (2, 1), chunk(b"PLTE", bytes(range(6)))),
            [[0, 1, 2], [3, 4, 5]],
            255,
        ),
        (
            png(2, 3, b"\0\x10", (2, 1), chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\x80")),
            [[0, 1, 2, 128], [3, 4, 5, 255]],
            255,
        ),
        (
            png(16, 2, b"\0" + bytes(range(12)), (2, 1), chunk(b"tRNS", bytes(range(6)))),
            [[0x001, 0x203, 0x405, 0], [0x607, 0x809, 0xA0B, 65535]],
            65535,
        ),
    ],
    ids=["1 bit", "2 bits", "grey16", "grey tRNS", "palette", "palette tRNS", "rgb16 tRNS"],
)
def test_kinds_of_png(tmp_path: Path, data: bytes, expected: list[list[int]], peak: int) -> None:
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    assert samples(image, peak).tolist() == [expected]
    assert image.transfer is Transfer.SRGB


def test_what_libpng_warns_of_is_said_by_the_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 0, b"\0\1\2" + bytes(500), (2, 1)))
    assert read_image(path).metadata.warnings == ("the PNG has a fault: IDAT: Too much image data",)
    path.write_bytes(png(8, 0, b"\0\1\2", (0, 1)))
    with pytest.raises(DecodeError, match="is damaged: it states 0 x 1 pixels"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_an_interlaced_16_bit_png(tmp_path: Path) -> None:
    rows, columns = 11, 13
    array = noise(rows, columns, 3, dtype=np.uint16)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for top, left, down, right in passes
        for row in array[top::down, left::right]
    )
    data = bytearray(png(16, 2, raw, (columns, rows)))
    data[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 16, 2, 0, 0, 1))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(samples(image, 65535), array)
    assert image.metadata.warnings == ()


def test_other_primaries_are_said_to_be_lost(tmp_path: Path) -> None:
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    adobe = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    bright = b"\0\0\0\1" + bytes(20)
    for primaries, lost in ((srgb, 0), (adobe, 1)):
        image = picture()
        chunks = ((b"cHRM", primaries), (b"mDCV", bright))
        image = replace(image, metadata=replace(image.metadata, png_chunks=chunks))
        assert write_image(image, tmp_path / "a.png") == []
        image = read_image(tmp_path / "a.png")
        assert image.metadata.png_chunks == chunks
        notes = write_image(image, tmp_path / "a.jpg")
        assert len(notes) == lost
        assert all("they will look different" in note for note in notes)


def test_an_extended_xmp_packet_is_said_to_be_lost(tmp_path: Path) -> None:
    packet = b'<rdf:Description xmp:Rating="5" xmpNote:HasExtendedXMP="0123"/>'
    PIL.Image.fromarray(smooth()).save(tmp_path / "a.jpg", xmp=packet)
    metadata = read_image(tmp_path / "a.jpg").metadata
    assert metadata.xmp == b'<rdf:Description xmp:Rating="5"/>'
    assert metadata.warnings == ("the extended part of the XMP packet was left out",)


@pytest.mark.parametrize("suffix", ["bmp", "ppm"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_formats_without_an_orientation_hold_upright_pictures(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.fromarray(smooth()).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as file:
        expected = np.asarray(PIL.ImageOps.exif_transpose(file))
    write_image(read_image(tmp_path / "a.png"), tmp_path / f"b.{suffix}")
    with PIL.Image.open(tmp_path / f"b.{suffix}") as file:
        assert np.array_equal(np.asarray(file), expected)


def test_a_jpeg_of_twelve_bits_is_refused_as_such(tmp_path: Path) -> None:
    data = imagecodecs.jpeg_encode(noise(16, 16, dtype=np.uint16) >> 4, bitspersample=12)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DecodeError, match="of 12 bits"):
        read_image(tmp_path / "a.jpg")


# Kinds of TIFF


@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zlib", "tile": (16, 16)},
        {"rowsperstrip": 3},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "zlib", "byteorder": ">"},
        {"planarconfig": "separate", "tile": (16, 16)},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_kinds_of_tiff(tmp_path: Path, options: dict[str, Any], dtype: Any) -> None:
    array = noise(21, 35, 3, dtype=dtype)
    separate = options.get("planarconfig") == "separate"
    stored = array.transpose(2, 0, 1) if separate else array
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples(image, np.iinfo(dtype).max), array)
    assert image.metadata.warnings == ()


def test_a_bigtiff_says_that_its_exif_tags_are_left_out(tmp_path: Path) -> None:
    maker = [(271, 2, 6, b"Maker\0", True)]
    (tmp_path / "a.tif").write_bytes(tiff(smooth(), bigtiff=True, extratags=maker))
    assert "EXIF" in read_image(tmp_path / "a.tif").metadata.warnings[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_is_zero(tmp_path: Path, dtype: Any) -> None:
    array = np.array([[0, 1, 1]]).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    image = read_image(tmp_path / "a.tif")
    assert image.layout is Layout.GRAY
    step = 1.0 if dtype is np.float32 else 1 / np.iinfo(dtype).max
    assert image.pixels.numpy() == pytest.approx(np.array([[[1, 1 - step, 1 - step]]]))


def test_bilevel_and_palette_tiff(tmp_path: Path) -> None:
    dots = noise(9, 21) > 128
    PIL.Image.fromarray(dots).save(tmp_path / "a.tif", compression="group4")
    image = read_image(tmp_path / "a.tif")
    assert (image.layout, image.metadata.bit_depth) == (Layout.GRAY, 8)
    assert np.array_equal(image.pixels[0].numpy(), dots)
    colours = PIL.Image.fromarray(smooth()).quantize(64)
    colours.save(tmp_path / "b.tif")
    again = read_image(tmp_path / "b.tif")
    assert np.array_equal(samples(again, 255), np.asarray(colours.convert("RGB")))


def test_twelve_bits_reach_white(tmp_path: Path) -> None:
    ifd = [(256, 3, 4), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1)]
    ifd += [(273, 4, 8), (277, 3, 1), (278, 3, 1), (279, 4, 6)]
    strip = bytes([0x00, 0x07, 0xFF, 0x80, 0x0F, 0xFF])
    entries = b"".join(
        struct.pack("<HHI", t, k, 1) + struct.pack("<I", v) for t, k, v in sorted(ifd)
    )
    data = b"II*\0" + struct.pack("<I", 14) + strip + struct.pack("<H", len(ifd)) + entries
    (tmp_path / "a.tif").write_bytes(data + bytes(4))
    image = read_image(tmp_path / "a.tif")
    assert image.metadata.bit_depth == 16
    expected = np.array([0, 2047, 2048, 4095]) / 4095
    assert image.pixels.flatten().numpy() == pytest.approx(expected, abs=1e-6)


def test_only_the_first_of_several_pages_is_read_and_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([smooth(), 255 - smooth()]), photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples(image, 255), smooth())
    assert "only the first" in image.metadata.warnings[0]


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_only_the_grey_of_a_white_is_zero_picture_is_turned(
    tmp_path: Path, kind: str, dtype: Any
) -> None:
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    grey, alpha = np.float64(0.25), np.float64(0.6)
    ink = (1 - grey) * (alpha if kind == "assocalpha" else 1)
    array = np.empty((5, 7, 2), dtype)
    array[...] = [ink * peak, alpha * peak]
    settings = {"photometric": "miniswhite", "planarconfig": "contig", "extrasamples": [kind]}
    tifffile.imwrite(tmp_path / "a.tif", array, **settings)
    image = read_image(tmp_path / "a.tif")
    assert image.alpha is not None
    torch.testing.assert_close(image.alpha, torch.full((1, 5, 7), 0.6), rtol=0, atol=0.004)
    torch.testing.assert_close(image.pixels, torch.full((1, 5, 7), 0.25), rtol=0, atol=0.01)


def test_alpha_behind_another_channel_is_found(tmp_path: Path) -> None:
    array = noise(8, 9, 5)
    kinds = ["unspecified", "unassalpha"]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=kinds)
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples(image, 255), array[..., [0, 1, 2, 4]])
    (note,) = image.metadata.warnings
    assert "beside colour and transparency" in note


def test_a_reduced_first_page_is_not_the_picture(tmp_path: Path) -> None:
    full, small = noise(20, 30, 3), noise(10, 15, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(small, photometric="rgb", subfiletype=1)
        tiff.write(full, photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples(image, 255), full)
    assert image.metadata.warnings == ()


def test_the_words_of_a_big_tiff_are_said_to_be_lost(tmp_path: Path) -> None:
    for description, lost in (("my words", 1), (None, 0)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            noise(8, 9, 3),
            photometric="rgb",
            bigtiff=True,
            description=description,
            metadata=None if description else {},
        )
        assert len(read_image(tmp_path / "a.tif").metadata.warnings) == lost


def test_associated_alpha_is_divided_out_and_said(tmp_path: Path) -> None:
    array = np.array([[[50, 100, 0, 100], [0, 0, 0, 0], [9, 8, 7, 255]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(tmp_path / "a.tif")
    expected = np.array([[0.5, 1, 0], [0, 0, 0], [9 / 255, 8 / 255, 7 / 255]])
    assert image.pixels[:, 0].T.numpy() == pytest.approx(expected)
    assert "divided" in image.metadata.warnings[0]


def test_channels_of_unknown_meaning_are_left_out_and_said(tmp_path: Path) -> None:
    array = noise(5, 6, 4)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    image = read_image(tmp_path / "a.tif")
    assert image.alpha is None
    assert np.array_equal(samples(image, 255), array[..., :3])
    assert len(image.metadata.warnings) == 1


def test_grey_with_more_channels_is_grey(tmp_path: Path) -> None:
    array = noise(5, 6, 3)
    path = tmp_path / "a.tif"
    extra = ["unassalpha", "unspecified"]
    tifffile.imwrite(
        path, array, photometric="minisblack", planarconfig="contig", extrasamples=extra
    )
    image = read_image(path)
    assert image.layout is Layout.GRAY
    assert np.array_equal(samples(image, 255), array[..., :2])
    assert len(image.metadata.warnings) == 1


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint32, 2**32 - 1), (np.float64, 1), (np.float16, 1)]
)
def test_wider_samples_become_floating_point(tmp_path: Path, dtype: Any, white: int) -> None:
    array = (np.array([[0, 0.25, 1]]) * white).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    assert image.metadata.bit_depth == 32
    assert image.pixels.flatten().tolist() == pytest.approx([0, 0.25, 1])
    assert len(image.metadata.warnings) == (np.dtype(dtype).itemsize > 2)


# Other formats


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"ü {format}.{format.lower()}"
    path.write_bytes(encoded(smooth(), format, quality=95))
    assert np.abs(samples(read_image(path), 255) - smooth()).mean() < 3
    assert write_image(read_image(path), tmp_path / f"b{path.suffix}", quality=98) == []
    again = read_image(tmp_path / f"b{path.suffix}")
    assert np.abs(samples(again, 255) - smooth()).mean() < 3


def test_quality_reaches_the_coder(tmp_path: Path) -> None:
    for suffix in (".jpg", ".webp"):
        small, large = tmp_path / f"s{suffix}", tmp_path / f"l{suffix}"
        write_image(picture(), small, quality=20)
        write_image(picture(), large, quality=98)
        assert small.stat().st_size < large.stat().st_size / 2


@pytest.mark.parametrize("format", ["BMP", "GIF", "PPM", "PCX"])
def test_the_long_tail_of_formats(tmp_path: Path, format: str) -> None:
    array = smooth() // 64 * 64
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(encoded(array, format))
    image = read_image(path)
    assert np.array_equal(samples(image, 255), array)
    assert is_image_path(path)
    if format in ("BMP", "PPM"):
        assert write_image(image, tmp_path / f"b{path.suffix}") == []
        assert np.array_equal(samples(read_image(tmp_path / f"b{path.suffix}"), 255), array)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "PPM", "TIFF"])
def test_grey_stays_grey(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format.lower().replace('ppm', 'pgm')}"
    path.write_bytes(encoded(smooth()[..., 0], format))
    image = read_image(path)
    assert (image.layout, image.pixels.shape) == (Layout.GRAY, (1, 64, 96))
    write_image(image, tmp_path / f"b{path.suffix}")
    with PIL.Image.open(tmp_path / f"b{path.suffix}") as written:
        assert written.mode == "L"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "AVIF", "PNG"])
def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path: Path, format: str) -> None:
    frames = [PIL.Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (0, 255)]
    path = tmp_path / "a.bin"
    settings = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(path, format, save_all=True, append_images=frames[1:], **settings)
    image = read_image(path)
    assert image.pixels.max() == 0
    assert len(image.metadata.warnings) == 1


def test_transparency_of_gif_and_webp(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    gif = PIL.Image.fromarray(indices, "P")
    gif.putpalette([10, 20, 30, 40, 50, 60])
    gif.save(tmp_path / "a.gif", transparency=1)
    alpha = read_image(tmp_path / "a.gif").alpha
    assert alpha is not None
    assert alpha[0].tolist() == [[1, 0], [0, 1]]
    write_image(picture(alpha=True), tmp_path / "a.webp")
    again, expected = read_image(tmp_path / "a.webp").alpha, picture(alpha=True).alpha
    assert again is not None
    assert expected is not None
    assert torch.equal(again, expected)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".bmp", ".txt", ""])
def test_content_decides_and_not_the_suffix(tmp_path: Path, suffix: str) -> None:
    for format in ("PNG", "TIFF", "JPEG", "BMP"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encoded(smooth(), format))
        assert np.abs(samples(read_image(path), 255) - smooth()).mean() < 3


def test_suffixes() -> None:
    for name in ("a.png", "A.JPG", "a.jpeg", "a.tif", "a.TIFF", "a.webp", "a.bmp", "a.dng"):
        assert is_image_path(Path(name))
    assert is_image_path(Path("a.avif"))
    assert not is_image_path(Path("a.txt"))
    assert not is_image_path(Path("a.heic"))
    assert not is_image_path(Path("png"))
    assert is_raw_path(Path("a.DNG"))
    assert not is_raw_path(Path("a.png"))


# AVIF


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_avif_keeps_its_depth(tmp_path: Path, bits: int, channels: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    array = noise(24, 32, channels, dtype=dtype) >> (0 if bits == 8 else 16 - bits)
    subsampling = "400" if channels == 1 else "444"
    planes = array[..., 0] if channels == 1 else array
    data = imagecodecs.avif_encode(planes, 100, bitspersample=bits, pixelformat=subsampling)
    (tmp_path / "a.avif").write_bytes(data)
    image = read_image(tmp_path / "a.avif")
    assert image.metadata.bit_depth == 8 * array.itemsize
    assert image.metadata.png_chunks == ()
    assert np.array_equal(samples(image, 2**bits - 1), array)


def test_avif_keeps_what_it_says_beside_its_pixels(tmp_path: Path) -> None:
    exif, profile = PIL.Image.Exif(), PIL.ImageCms.createProfile("sRGB")
    exif[274], exif[271] = 6, "Maker"
    profile = PIL.ImageCms.ImageCmsProfile(profile).tobytes()
    data = encoded(smooth(), "AVIF", exif=exif, icc_profile=profile, xmp=b"<x/>")
    (tmp_path / "a.avif").write_bytes(data)
    metadata = read_image(tmp_path / "a.avif").metadata
    assert (metadata.orientation, metadata.make) == (6, "Maker")
    assert (metadata.icc_profile, metadata.xmp) == (profile, b"<x/>")


def test_wide_colours_of_avif_reach_a_png_and_are_missed_in_a_jpeg(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.avif_encode(smooth(), 100, pixelformat="444"))
    at = data.index(b"colrnclx") + 8
    struct.pack_into(">HH", data, at, 9, 16)  # BT.2020, PQ
    (tmp_path / "a.avif").write_bytes(data)
    image = read_image(tmp_path / "a.avif")
    assert image.metadata.png_chunks == ((b"cICP", bytes((9, 16, 0, 1))),)
    assert write_image(image, tmp_path / "b.png") == []
    assert read_image(tmp_path / "b.png").metadata.png_chunks == image.metadata.png_chunks
    [note] = write_image(image, tmp_path / "b.jpg")
    assert "cICP" in note


@pytest.mark.parametrize(
    ("head", "suffix", "name"),
    [
        (b"\0\0\0\x18ftypheic", ".png", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", ".png", "HEIC"),
        (b"\xff\x0a", ".png", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", ".png", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", ".png", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", ".png", "JPEG 2000"),
        (b"\0\0\x02", ".tga", "TGA"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_a_remedy(
    tmp_path: Path, head: bytes, suffix: str, name: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(head + bytes(40))
    with pytest.raises(
        DecodeError, match=f"{name} pictures are not supported; convert it to PNG"
    ) as error:
        read_image(path)
    one_line(error, path)


# Depth and layout on the way out


@pytest.mark.parametrize(
    ("suffix", "bits", "dtype", "warned"),
    [
        (".png", 8, np.uint8, 0),
        (".png", 16, np.uint16, 0),
        (".png", 12, np.uint16, 0),
        (".png", 32, np.uint16, 1),
        (".tif", 8, np.uint8, 0),
        (".tif", 14, np.uint16, 0),
        (".tif", 32, np.float32, 0),
        (".jpg", 8, np.uint8, 0),
        (".jpg", 16, np.uint8, 1),
        (".webp", 16, np.uint8, 1),
    ],
)
def test_depth_out(tmp_path: Path, suffix: str, bits: int, dtype: Any, warned: int) -> None:
    path = tmp_path / f"a{suffix}"
    assert len(write_image(picture(bits=bits), path)) == warned
    array = imagecodecs.imread(path) if suffix != ".tif" else tifffile.imread(path)
    assert array.dtype == dtype


def test_integers_round_and_clamp(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, 0.49 / 255, 0.51 / 255, 1.7, torch.nan, torch.inf])
    image = Image(values.reshape(1, 1, 6), Transfer.SRGB, Layout.GRAY)
    write_image(image, tmp_path / "a.png")
    assert imagecodecs.imread(tmp_path / "a.png").flatten().tolist() == [0, 0, 1, 255, 0, 255]
    assert torch.equal(values[:4], image.pixels.flatten()[:4])


def test_linear_pictures_are_encoded(tmp_path: Path) -> None:
    linear = replace(picture(bits=16), transfer=Transfer.LINEAR)
    write_image(linear, tmp_path / "a.png")
    expected = (linear_to_srgb(linear.pixels.double()) * 65535).permute(1, 2, 0).numpy()
    assert np.abs(imagecodecs.imread(tmp_path / "a.png") - expected).max() < 0.6


def test_jpeg_says_that_it_drops_alpha(tmp_path: Path) -> None:
    assert "transparency" in write_image(picture(alpha=True), tmp_path / "a.jpg")[0]
    assert read_image(tmp_path / "a.jpg").alpha is None


def test_format_wins_over_suffix_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "föld" / "a.jpg"
    write_image(picture(), path, format="png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


# What is refused


def one_line(error: pytest.ExceptionInfo[Exception], path: Path) -> None:
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 200


def tiff(array: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="rgb", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        imagecodecs.png_encode(smooth()),
        imagecodecs.png_encode(noise(64, 96, 3, dtype=np.uint16)),
        encoded(smooth(), "JPEG", quality=95),
        encoded(smooth(), "JPEG", progressive=True),
        encoded(smooth(), "WEBP"),
        encoded(smooth(), "WEBP", lossless=True),
        encoded(smooth(), "AVIF"),
        imagecodecs.avif_encode(noise(64, 96, 3, dtype=np.uint16) >> 6, 90, bitspersample=10),
        encoded(smooth(), "BMP"),
        encoded(smooth(), "PPM"),
        encoded(smooth(), "TIFF", compression="tiff_lzw"),
        encoded(smooth(), "TIFF", compression="jpeg"),
        tiff(smooth()),
        tiff(smooth(), compression="zlib", predictor=2),
        tiff(smooth(), rowsperstrip=5),
        tiff(smooth(), tile=(16, 16), compression="packbits"),
    ],
    ids=lambda data: f"{data[:2]!r} {len(data)}",
)
def test_a_truncated_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cut é.jpg"
    path.write_bytes(data)
    assert read_image(path).pixels.shape == (3, *smooth().shape[:2])
    for kept in (*range(0, len(data), len(data) // 50), *range(len(data) - 9, len(data))):
        path.write_bytes(data[:kept])
        with pytest.raises(DecodeError) as error:
            read_image(path)
        one_line(error, path)


def test_a_jpeg_that_goes_on_as_zeros_is_an_error(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[270] = b"a thumbnail ends \xff\xda\xff\xd9"
    data = encoded(smooth(), "JPEG", quality=95, exif=exif)
    path = tmp_path / "a.jpg"
    path.write_bytes(data + bytes(100))
    read_image(path)
    path.write_bytes(data[: len(data) * 3 // 4] + bytes(len(data) // 4))
    with pytest.raises(DecodeError) as error:
        read_image(path)
    one_line(error, path)


@pytest.mark.parametrize(
    "data", [b"", b"hello\n" * 50, bytes(1000), b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF....WEBP"]
)
def test_no_picture_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(DecodeError) as error:
        read_image(path)
    one_line(error, path)


def test_folders_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(DecodeError, match="no such file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.nef"])
def test_a_pipe_is_an_error_that_says_so(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DecodeError, match="is a pipe or a device") as error:
        read_image(tmp_path / name)
    one_line(error, tmp_path / name)


@settings(max_examples=150, deadline=None, suppress_health_check=PER_EXAMPLE)
@given(st.data())
def test_damage_gives_a_picture_or_a_decode_error(tmp_path: Path, data: st.DataObject) -> None:
    sources = [
        imagecodecs.png_encode(smooth(9, 11)),
        encoded(smooth(9, 11), "JPEG"),
        encoded(smooth(9, 11), "WEBP"),
        encoded(smooth(9, 11), "AVIF"),
        encoded(smooth(9, 11), "GIF"),
        encoded(smooth(9, 11), "BMP"),
        tiff(smooth(9, 11), compression="zlib", predictor=2),
        tiff(smooth(9, 11), tile=(16, 16)),
    ]
    damaged = bytearray(data.draw(st.sampled_from(sources)))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.png"
    path.write_bytes(damaged)
    with suppress(DecodeError):
        assert read_image(path, max_megapixels=1).pixels.shape[0] in (1, 3)


def bomb_tiff(tile: int) -> bytes:
    data = tiff(np.zeros((16, 16, 3), np.uint8), tile=(16, 16), compression="zlib")
    small = struct.pack("<HHII", 322, 4, 1, 16)
    for tag, kind in ((322, 4), (323, 4), (322, 3), (323, 3)):
        small = struct.pack("<HHIHH", tag, kind, 1, 16, 0)
        data = data.replace(small, struct.pack("<HHII", tag, 4, 1, tile))
    return data


@pytest.mark.parametrize(
    "data",
    [
        png(8, 2, b"", (40000, 40000)),
        png(1, 0, bytes(100), (2**31 - 1, 2**31 - 1)),
        b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0) + bytes(16),
        encoded(np.zeros((2000, 16000), np.uint8), "JPEG"),
        encoded(np.zeros((2000, 16000), np.uint8), "GIF"),
        encoded(np.zeros((2000, 16000), np.uint8), "WEBP", lossless=True),
        tiff(np.zeros((1000, 32000, 3), np.uint8), compression="zlib"),
        bomb_tiff(1 << 17),
    ],
    ids=["png", "png max", "bmp", "jpeg", "gif", "webp", "tiff", "tiff tile"],
)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="limit of 30 megapixels.*max_megapixels") as error:
        read_image(path, max_megapixels=30)
    one_line(error, path)


def test_pillows_own_limit_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(smooth(), "JPEG"))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(read_image, [path] * 40))) == 40
    assert PIL.Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_refused_with_a_remedy(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(smooth()).convert("CMYK").save(path, format)
    with pytest.raises(DecodeError, match="CMYK.*convert it to RGB first$"):
        read_image(path)


@pytest.mark.parametrize(
    "data",
    [
        b"P3\n1 1\n65535\n0 0 0\n",
        b"P2\n2 1\n4095\n0 4095\n",
        b"Pf\n2 1\n-1.0\n" + bytes(8),
    ],
)
def test_formats_that_pillow_would_cut_to_8_bits_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.ppm").write_bytes(data)
    with pytest.raises(DecodeError, match="PNG or TIFF"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("white", [256, 4095, 65535])
@pytest.mark.parametrize(("magic", "planes"), [("P5", 1), ("P6", 3)])
def test_pnm_keeps_its_depth_and_its_white(
    tmp_path: Path, white: int, magic: str, planes: int
) -> None:
    array = np.random.default_rng(0).integers(0, white + 1, (3, 4, planes), dtype=np.uint16)
    array[0, :2] = [[0], [white]]
    path = tmp_path / "a.pnm"
    path.write_bytes(f"{magic}\n# deep\n4 3\n{white}\n".encode() + array.astype(">u2").tobytes())
    image = read_image(path)
    assert (image.pixels.amax(), image.metadata.bit_depth) == (1, 16)
    assert np.array_equal(samples(image, white).reshape(array.shape), array)
    assert write_image(image, tmp_path / "b.ppm") == [
        "PPM holds 8 bits a sample: the picture had 16"
    ]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DecodeError, match="cut off"):
        read_image(path)


def test_signed_samples_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.int16), photometric="minisblack")
    with pytest.raises(DecodeError, match="convert it to unsigned 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("format", ["dng", "cfa-dng"])
def test_dng_of_a_finished_picture_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(OutputError, match="RAW") as error:
        write_image(picture(), tmp_path / "a.dng", format=format)
    one_line(error, tmp_path / "a.dng")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write \.gif; choose one of png"):
        write_image(picture(), tmp_path / "a.gif")
    with pytest.raises(OutputError, match="without a suffix"):
        write_image(picture(), tmp_path / "a")
    with pytest.raises(UsageError, match="heic"):
        write_image(picture(), tmp_path / "a.png", format="heic")


# Failures on the way out


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import torch
from restorekit.errors import OutputError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io import write_image
image = Image(torch.rand(3, 200, 200), Transfer.SRGB, Layout.RGB, Metadata(bit_depth=16))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
    try:
        write_image(image, Path(sys.argv[1]) / name)
    except OutputError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(os.strerror(errno.EFBIG) in line for line in lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_an_unwritable_place_is_an_output_error(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OutputError, match="file"):
        write_image(picture(), tmp_path / "file" / f"a{suffix}")
    (tmp_path / f"b{suffix}").mkdir()
    with pytest.raises(OutputError):
        write_image(picture(), tmp_path / f"b{suffix}")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied") as error:
        write_image(picture(), tmp_path / f"a{suffix}")
    one_line(error, tmp_path / f"a{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {"file", f"b{suffix}"}


def test_a_picture_too_large_for_webp_is_an_output_error(tmp_path: Path) -> None:
    wide = Image(torch.zeros(3, 2, 20000), Transfer.SRGB, Layout.RGB)
    with pytest.raises(OutputError) as error:
        write_image(wide, tmp_path / "a.webp")
    one_line(error, tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


# RAW goes through its own reader and writers


@pytest.fixture
def raw_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from restorekit.io import dng, raw

    calls: list[str] = []

    def called(name: str, result: Callable[[Any], Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **_: Any) -> Any:
            calls.append(name)
            if rest:
                rest[0].write_bytes(b"dng")
            return result(first)

        return call

    finished = picture(bits=16)
    monkeypatch.setattr(raw, "develop", called("develop", lambda _: finished))
    monkeypatch.setattr(raw, "demosaic", called("demosaic", lambda image: image))
    monkeypatch.setattr(raw, "read_raw", called("read", lambda _: finished))
    monkeypatch.setattr(dng, "write_cfa_dng", called("cfa", lambda _: None))
    monkeypatch.setattr(dng, "write_linear_dng", called("linear", lambda _: None))
    return calls


def test_bayer_pictures_are_developed_or_written_as_dng(
    tmp_path: Path, raw_calls: list[str]
) -> None:
    bayer = Image(torch.zeros(4, 4, 4), Transfer.LINEAR, Layout.BAYER)
    assert write_image(bayer, tmp_path / "a.tif") == []
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint16
    write_image(bayer, tmp_path / "a.dng")
    write_image(bayer, tmp_path / "b.dng", format="cfa-dng")
    assert raw_calls == ["develop", "demosaic", "linear", "cfa"]
    assert (tmp_path / "b.dng").read_bytes() == b"dng"


def test_raw_is_known_by_suffix_and_by_content(tmp_path: Path, raw_calls: list[str]) -> None:
    dng_version = [(50706, 1, 4, bytes([1, 4, 0, 0]), True)]
    data = tiff(smooth(), extratags=dng_version)
    (tmp_path / "a.tif").write_bytes(data)
    (tmp_path / "a.nef").write_bytes(b"whatever")
    (tmp_path / "a").write_bytes(b"FUJIFILMCCD-RAW ")
    for name in ("a.tif", "a.nef", "a"):
        read_image(tmp_path / name)
    assert raw_calls == ["read"] * 3
    (tmp_path / "b.nef").write_bytes(encoded(smooth(), "PNG"))
    read_image(tmp_path / "b.nef")
    assert raw_calls == ["read"] * 4
