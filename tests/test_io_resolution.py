import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from restorekit.io import read_image, write_image

# The colours, density and text that files state beside EXIF, XMP and ICC profile.

CHUNKS = [
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"sRGB", b"\1"),
    (b"cICP", bytes((1, 13, 0, 1))),
    (b"pHYs", struct.pack(">IIB", 11811, 5906, 1)),
]
TEXTS = [
    (b"tEXt", b"Software\0painter"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"prompt")),
    (b"iTXt", b"Title\0\0\0de\0Titel\0Stra\xc3\x9fe"),
]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path: Path, *chunks: tuple[bytes, bytes], dtype: Any = np.uint8) -> Path:
    data = imagecodecs.png_encode(np.zeros((5, 6, 3), dtype))
    path.write_bytes(data[:33] + b"".join(chunk(*c) for c in chunks) + data[33:])
    return path


def chunks_of(path: Path) -> list[tuple[bytes, bytes]]:
    data, start, chunks = path.read_bytes(), 8, []
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        chunks.append((kind, data[start + 8 : start + 8 + length]))
        start += 12 + length
    return [c for c in chunks if c[0] not in (b"IHDR", b"IDAT", b"IEND")]


def save(path: Path, **settings: Any) -> Path:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (6, 5)).save(stream, path.suffix[1:].replace("jpg", "jpeg"), **settings)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_chunks_of_a_png_are_carried(tmp_path: Path, dtype: Any) -> None:
    source = write_png(tmp_path / "a.png", *CHUNKS, *TEXTS, dtype=dtype)
    for strip, kept in (("none", [*CHUNKS, *TEXTS]), ("gps", [*CHUNKS, *TEXTS]), ("all", CHUNKS)):
        assert write_image(read_image(source), tmp_path / "b.png", strip=strip) == []
        assert chunks_of(tmp_path / "b.png") == kept


def test_texts_that_may_hold_positions_are_stripped_with_gps(tmp_path: Path) -> None:
    texts = [(b"tEXt", b"exif:GPSLatitude\0 48"), (b"zTXt", b"Raw profile type iptc\0\0x")]
    source = write_png(tmp_path / "a.png", *texts, TEXTS[0])
    write_image(read_image(source), tmp_path / "b.png", strip="gps")
    assert chunks_of(tmp_path / "b.png") == [TEXTS[0]]
    write_image(read_image(source), tmp_path / "b.png")
    assert chunks_of(tmp_path / "b.png") == [*texts, TEXTS[0]]


def test_a_damaged_density_is_a_warning(tmp_path: Path) -> None:
    metadata = read_image(write_png(tmp_path / "a.png", (b"pHYs", b"short"))).metadata
    assert metadata.resolution is None
    assert metadata.png_chunks == ()
    assert "pHYs" in metadata.warnings[0]


GAMMA_1, GAMMA_SRGB = (b"gAMA", struct.pack(">I", 100000)), (b"gAMA", struct.pack(">I", 45000))
CICP_PQ, CICP_SRGB = (b"cICP", bytes((9, 16, 0, 1))), (b"cICP", bytes((1, 13, 0, 1)))


@pytest.mark.parametrize(
    ("chunks", "warned"),
    [
        ([], False),
        ([GAMMA_SRGB], False),
        ([GAMMA_1], True),
        ([GAMMA_1, (b"sRGB", b"\0")], False),
        ([CICP_PQ], True),
        ([CICP_PQ, (b"sRGB", b"\0")], True),
        ([CICP_SRGB], False),
    ],
)
def test_colours_that_only_a_png_can_hold_are_warned_of(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], warned: bool
) -> None:
    image = read_image(write_png(tmp_path / "a.png", *chunks))
    for name in ("b.jpg", "b.tif", "b.webp", "b.bmp"):
        notes = write_image(image, tmp_path / name)
        assert ["gAMA" in note for note in notes] == [True] * warned
    assert write_image(image, tmp_path / "b.png") == []


def test_texts_that_are_left_out_are_warned_of(tmp_path: Path) -> None:
    image = read_image(write_png(tmp_path / "a.png", *TEXTS))
    assert "text chunks" in write_image(image, tmp_path / "b.jpg")[0]
    assert write_image(image, tmp_path / "b.jpg", strip="all") == []


def stated(path: Path) -> tuple[float, float]:
    with PIL.Image.open(path) as opened:
        across, down = opened.info["dpi"]
    return float(across), float(down)


@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".bmp"])
def test_resolution_is_carried(tmp_path: Path, source: str, target: str) -> None:
    path = tmp_path / f"a{source}"
    if source == ".tif":
        array = np.zeros((5, 6, 3), np.uint8)
        tifffile.imwrite(
            path, array, photometric="rgb", resolution=(300, 150), resolutionunit=2, software=False
        )
    else:
        save(path, dpi=(300, 150))
    image = read_image(path)
    assert image.metadata.resolution == pytest.approx((300, 150), abs=0.02)
    assert write_image(image, tmp_path / f"b{target}") == []
    assert stated(tmp_path / f"b{target}") == pytest.approx((300, 150), abs=0.02)


def test_a_resolution_in_centimetres(tmp_path: Path) -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="rgb", resolution=(100, 50), resolutionunit=3
    )
    assert read_image(tmp_path / "a.tif").metadata.resolution == pytest.approx((254, 127))


def test_the_resolution_of_the_file_wins_over_that_of_the_exif_block(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[282], exif[283], exif[296], exif[271] = 72.0, 72.0, 2, "Maker"
    image = read_image(save(tmp_path / "a.png", dpi=(300, 300), exif=exif))
    write_image(image, tmp_path / "b.tif")
    assert stated(tmp_path / "b.tif") == pytest.approx((300, 300), abs=0.02)
    image = read_image(save(tmp_path / "a.jpg", exif=exif))
    assert image.metadata.resolution is None
    write_image(image, tmp_path / "b.tif")
    assert stated(tmp_path / "b.tif") == (72, 72)


@pytest.mark.parametrize("pair", [(0, 1), (300, 0)])
def test_a_senseless_resolution_is_none(tmp_path: Path, pair: tuple[int, int]) -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb", resolution=(72, 72), resolutionunit=2)
    old = struct.pack("<II", 72, 1)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, struct.pack("<II", *pair)))
    assert read_image(path).metadata.resolution is None


@pytest.mark.parametrize("pair", [(2**32 - 1, 1), (1, 2**32 - 1)])
def test_no_resolution_spoils_a_file(tmp_path: Path, pair: tuple[int, int]) -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb", resolution=(pair, pair), resolutionunit=2)
    image = read_image(path)
    assert image.metadata.resolution == pytest.approx((pair[0] / pair[1],) * 2)
    for name in ("b.png", "b.jpg", "b.bmp", "b.tif", "b.webp"):
        write_image(image, tmp_path / name)
        assert read_image(tmp_path / name).pixels.shape == (3, 5, 6)
