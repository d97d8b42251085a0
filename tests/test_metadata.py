import io
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL.ExifTags
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageCms
from PIL.IptcImagePlugin import getiptcinfo

from restorekit.errors import UsageError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io import read_image, write_image
from restorekit.io.exif import edit_exif, exif_of_tiff
from restorekit.io.metadata import carried, with_exif

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLACE = ((48.0, 51.0, 29.99), b"\x02\x03\x00\x00")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="48,51N" '
    b"xmp:Rating='5'><exif:GPSLongitude>2,17E</exif:GPSLongitude></rdf:Description></x:xmpmeta>"
)
FORMATS = ("png", "jpg", "tiff", "webp")
LOST = {"tiff": ["the MakerNote of the EXIF block does not survive in TIFF and was left out"]}


def exif_block(order: str = "<", orientation: int | None = 6) -> bytes:
    exif = PIL.Image.Exif()
    exif.endian = order
    exif[271], exif[272], exif[315] = "Nikon", "D90 long name", "Zoe"
    if orientation:
        exif[274] = orientation
    shot = exif.get_ifd(34665)
    shot[33434], shot[34855], shot[36867] = 1 / 125, 800, "2020:01:02 03:04:05"
    shot[37500] = b"maker's secrets"
    shot[37386] = 35.5
    shot[33437], shot[37521] = 2.8, "25"
    gps = exif.get_ifd(34853)
    gps[0], gps[1], gps[2] = PLACE[1], "N", PLACE[0]
    return exif.tobytes()[6:]


def parsed(block: bytes) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif.load(b"Exif\0\0" + block)
    return exif


def picture(**fields: Any) -> Image:
    pixels = torch.linspace(0, 1, 3 * 5 * 7).reshape(3, 5, 7)
    return Image(pixels, Transfer.SRGB, Layout.RGB, Metadata(**fields))


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_fields_come_from_the_exif_block(order: str) -> None:
    metadata = with_exif(Metadata(), b"Exif\0\0" + exif_block(order))
    assert metadata.exif == exif_block(order)
    assert (metadata.make, metadata.model, metadata.orientation) == ("Nikon", "D90 long name", 6)
    assert metadata.iso == 800
    assert metadata.exposure_time == pytest.approx(1 / 125)
    assert metadata.f_number == pytest.approx(2.8)
    moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert metadata.taken == pytest.approx(moment + 0.25)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_orientation_exif_xmp_and_icc_survive(
    tmp_path: Path, format: str, orientation: int
) -> None:
    order = "<" if orientation % 2 else ">"
    path = tmp_path / f"a.{format}"
    source = picture(
        exif=exif_block(order), orientation=orientation, xmp=XMP, icc_profile=SRGB, iso=1.0
    )
    assert write_image(source, path) == LOST.get(format, [])
    metadata = read_image(path).metadata
    assert metadata.warnings == ()
    assert metadata.orientation == orientation
    assert (metadata.icc_profile, metadata.xmp) == (SRGB, XMP)
    assert (metadata.make, metadata.iso) == ("Nikon", 800)
    with PIL.Image.open(path) as opened:
        exif = opened.getexif()
        assert exif[274] == orientation
        assert exif[315] == "Zoe"
        assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
        assert float(exif.get_ifd(34665)[37386]) == pytest.approx(35.5)
        assert exif.get_ifd(34853)[2] == pytest.approx(PLACE[0])
        assert opened.info["icc_profile"] == SRGB
        assert (37500 in exif.get_ifd(34665)) == (format != "tiff")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_strip_gps_leaves_no_trace_of_the_place(tmp_path: Path, format: str, order: str) -> None:
    path = tmp_path / f"a.{format}"
    source = picture(exif=exif_block(order), orientation=6, xmp=XMP, icc_profile=SRGB)
    assert write_image(source, path, strip="gps") == LOST.get(format, [])
    metadata = read_image(path).metadata
    assert metadata.exif is not None
    assert metadata.xmp is not None
    exif = parsed(metadata.exif)
    assert not exif.get_ifd(34853)
    assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    latitude = struct.pack(order + "IIII", 48, 1, 51, 1)
    assert latitude in exif_block(order)
    assert latitude not in path.read_bytes()
    assert b"GPS" not in metadata.xmp
    assert b"xmp:Rating='5'" in metadata.xmp
    assert metadata.icc_profile == SRGB


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", [1, 8])
def test_strip_all_keeps_orientation_and_icc(tmp_path: Path, format: str, orientation: int) -> None:
    path = tmp_path / f"a.{format}"
    source = picture(exif=exif_block(), orientation=orientation, xmp=XMP, icc_profile=SRGB)
    assert write_image(source, path, strip="all") == []
    metadata = read_image(path).metadata
    assert (metadata.orientation, metadata.icc_profile) == (orientation, SRGB)
    assert metadata.xmp is None
    assert metadata.make is None
    assert b"Nikon" not in path.read_bytes()
    if metadata.exif is not None:
        assert dict(parsed(metadata.exif)) == {274: orientation}


def test_a_turned_picture_loses_the_old_orientation() -> None:
    turned = carried(Metadata(exif=exif_block(">", 6), orientation=1), "none", grey=False)
    assert turned.exif is not None
    exif = parsed(turned.exif)
    assert exif[274] == 1
    assert exif.get_ifd(34665)[37500] == b"maker's secrets"


def test_an_orientation_is_added_where_the_exif_states_none() -> None:
    block = exif_block(">", None)
    assert edit_exif(block, 1) == block
    edited = parsed(edit_exif(block, 3))
    assert edited[274] == 3
    assert edited[272] == "D90 long name"
    assert edited.get_ifd(34853)[2] == pytest.approx(PLACE[0])


def exif_with_thumbnail(order: str, places: tuple[int, int], end: bytes) -> bytes:
    """Return exif_block with a second directory, which says "Maker" and names a picture."""
    block = bytearray(exif_block(order))
    start = struct.unpack_from(order + "I", block, 4)[0]
    following = start + 2 + 12 * struct.unpack_from(order + "H", block, start)[0]
    block += bytes(len(block) % 2)
    ifd1 = len(block)
    struct.pack_into(order + "I", block, following, ifd1)
    values = ifd1 + 2 + 3 * 12 + 4
    block += struct.pack(order + "H", 3)
    block += struct.pack(order + "HHII", 271, 2, 6, values)
    for tag, value in zip(places, (values + 6, 9), strict=True):
        block += struct.pack(order + "HHII", tag, 4, 1, value)
    return bytes(block + bytes(4) + b"Maker\0" + b"thumbnail" + end)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("places", [(513, 514), (273, 279)])
@pytest.mark.parametrize("end", [b"", b"what follows"])
@pytest.mark.parametrize("orientation", [6, 1])
def test_no_thumbnail_is_written(
    order: str, places: tuple[int, int], end: bytes, orientation: int
) -> None:
    block = exif_with_thumbnail(order, places, end)
    assert places[0] in parsed(block).get_ifd(PIL.ExifTags.IFD.IFD1)
    edited = edit_exif(block, orientation)
    assert not parsed(edited).get_ifd(PIL.ExifTags.IFD.IFD1)
    assert b"thumbnail" not in edited
    assert b"Maker\0" not in edited
    assert end in edited
    before, after = parsed(block), parsed(edited)
    assert dict(after) | {34665: 0, 34853: 0} == dict(before) | {
        274: orientation,
        34665: 0,
        34853: 0,
    }
    for pointer in (34665, 34853):
        assert after.get_ifd(pointer) == before.get_ifd(pointer)
    assert edit_exif(edited, orientation) == edited


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("strip", ["none", "gps", "all"])
def test_the_file_of_a_crop_shows_nothing_else(tmp_path: Path, format: str, strip: str) -> None:
    stream = io.BytesIO()
    block = exif_with_thumbnail("<", (513, 514), b"")
    PIL.Image.new("RGB", (9, 8)).save(stream, "JPEG", exif=b"Exif\0\0" + block)
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    crop = read_image(tmp_path / "a.jpg").crop(1, 1, 4, 3)
    lost = [] if strip == "all" else LOST.get(format, [])
    assert write_image(crop, tmp_path / f"b.{format}", strip=strip) == lost
    assert b"thumbnail" in stream.getvalue()
    assert b"thumbnail" not in (tmp_path / f"b.{format}").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_exif_block_states_the_written_size(tmp_path: Path, format: str, order: str) -> None:
    exif = parsed(exif_block(order))
    exif.endian = order
    exif.get_ifd(34665)[40962], exif.get_ifd(34665)[40963] = 4000, 3000
    path = tmp_path / f"a.{format}"
    write_image(picture(exif=exif.tobytes()[6:], orientation=6), path)
    with PIL.Image.open(path) as opened:
        shot = opened.getexif().get_ifd(34665)
    assert (shot[40962], shot[40963], shot[34855]) == (7, 5, 800)


def test_the_settings_of_a_picture_without_an_exif_block_are_written(tmp_path: Path) -> None:
    source = picture(iso=400.0, exposure_time=1 / 30, orientation=8)
    for format in FORMATS:
        write_image(source, tmp_path / f"a.{format}")
        again = read_image(tmp_path / f"a.{format}").metadata
        assert (again.iso, again.orientation) == (400, 8)
        assert again.exposure_time == pytest.approx(1 / 30)
        write_image(source, tmp_path / f"a.{format}", strip="all")
        again = read_image(tmp_path / f"a.{format}").metadata
        assert (again.iso, again.exposure_time, again.orientation) == (None, None, 8)


def test_maker_notes_and_interoperability_are_not_moved() -> None:
    rebuilt = exif_of_tiff(exif_block(">"))
    assert rebuilt is not None
    before, after = parsed(exif_block(">")), parsed(rebuilt)
    assert 37500 not in after.get_ifd(34665)
    assert after[272] == before[272]
    assert after.get_ifd(34853) == before.get_ifd(34853)
    assert {k: v for k, v in before.get_ifd(34665).items() if k != 37500} == after.get_ifd(34665)


@pytest.mark.parametrize("block", [b"", b"Exif", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff"])
def test_a_damaged_exif_block_is_a_warning(tmp_path: Path, block: bytes) -> None:
    assert with_exif(Metadata(), block).exif is None
    assert len(with_exif(Metadata(), block).warnings) == (block != b"")
    for format in FORMATS:
        source = picture(exif=block, orientation=3)
        assert len(write_image(source, tmp_path / f"a.{format}")) == (block != b"")
        assert read_image(tmp_path / f"a.{format}").metadata.orientation == 3


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_damage_to_the_block_escapes_as_an_exception(data: st.DataObject) -> None:
    places = data.draw(st.sampled_from([(513, 514), (273, 279)]))
    block = bytearray(exif_with_thumbnail(data.draw(st.sampled_from("<>")), places, b"end"))
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(4, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = block[: data.draw(st.integers(0, len(block)))]
    for strip in ("none", "gps", "all"):
        metadata = with_exif(Metadata(), bytes(block))
        written = carried(replace(metadata, orientation=4), strip, grey=False, size=(7, 5))
        assert written.exif is not None
        assert with_exif(Metadata(), written.exif).orientation == 4


@pytest.mark.parametrize("kind", [2, 11])
def test_a_pointer_of_a_wrong_type_is_damage(kind: int) -> None:
    infinity = struct.pack("<f", float("inf"))
    for tag in (34665, 34853):
        entry = struct.pack("<HHHI4sI", 1, tag, kind, 1, infinity, 0)
        metadata = with_exif(Metadata(), b"II*\0\x08\0\0\0" + entry)
        carried(metadata, "gps", grey=False)


def test_a_block_of_nothing_but_damaged_positions_stays_a_block() -> None:
    gps = struct.pack("<HHHIII", 1, 2, 5, 3, 0, 0)
    main = struct.pack("<HHHIII", 1, 34853, 4, 1, 26, 0)
    written = carried(with_exif(Metadata(), b"II*\0\x08\0\0\0" + main + gps), "gps", grey=False)
    assert written.exif is not None
    assert with_exif(Metadata(), written.exif).warnings == ()


def test_xmp_that_still_speaks_of_positions_is_dropped() -> None:
    xmp = b"<rdf:li exif:GPS><b/></rdf:li>"
    left = carried(Metadata(xmp=xmp), "gps", grey=False)
    assert left.xmp is None
    assert len(left.warnings) == 1
    assert carried(Metadata(xmp=xmp), "none", grey=False).xmp == xmp


def test_a_profile_of_other_colours_is_dropped_with_a_warning() -> None:
    left = carried(Metadata(icc_profile=SRGB), "none", grey=True)
    assert left.icc_profile is None
    assert "ICC" in left.warnings[0]


def test_an_unknown_strip_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none, gps, all"):
        write_image(picture(), tmp_path / "a.png", strip="some")
    assert not list(tmp_path.iterdir())


def test_metadata_too_long_for_jpeg_is_a_warning(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[270] = "x" * 70000
    block = exif.tobytes()[6:]
    path = tmp_path / "a.jpg"
    warnings = write_image(picture(exif=block, orientation=6, xmp=b"x" * 70000), path)
    assert len(warnings) == 2
    assert read_image(path).metadata.orientation == 6
    assert write_image(picture(exif=block, orientation=6), tmp_path / "a.png") == []


@pytest.mark.parametrize("format", ["jpg", "tiff"])
@pytest.mark.parametrize("caption", [b"Lake", b"Lakes"])
def test_iptc_records_survive(tmp_path: Path, format: str, caption: bytes) -> None:
    records = b"\x1c\x02\x78" + len(caption).to_bytes(2) + caption
    path = tmp_path / f"a.{format}"
    assert write_image(picture(iptc=records), path) == []
    assert read_image(path).metadata.iptc == records
    with PIL.Image.open(path) as opened:
        assert getiptcinfo(opened) == {(2, 120): caption}
    assert write_image(read_image(path), path, strip="all", overwrite=True) == []
    assert read_image(path).metadata.iptc is None


def test_iptc_records_that_are_lost_are_a_warning(tmp_path: Path) -> None:
    for name, size in (("a.png", 10), ("a.webp", 10), ("a.jpg", 65507)):
        [warning] = write_image(picture(iptc=b"x" * size), tmp_path / name)
        assert "IPTC" in warning
    path = tmp_path / "b.jpg"
    assert write_image(picture(iptc=b"x" * 65506), path) == []
    assert read_image(path).metadata.iptc == b"x" * 65506


def _text_chunk(save: Callable[[PIL.Image.Image, io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    save(PIL.Image.new("RGB", (3, 2)), stream)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_png_text_chunks_are_read(tmp_path: Path, packed: bool) -> None:
    from PIL.PngImagePlugin import PngInfo

    block = b"Exif\0\0" + exif_block()
    profile = f"\nexif\n{len(block):8d}\n{block.hex()}\n"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=packed)
    info.add_text("Raw profile type exif", profile, zip=packed)
    path = tmp_path / "a.png"
    path.write_bytes(_text_chunk(lambda image, stream: image.save(stream, "PNG", pnginfo=info)))
    metadata = read_image(path).metadata
    assert (metadata.xmp, metadata.exif, metadata.warnings) == (XMP, exif_block(), ())


def test_a_damaged_png_chunk_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    write_image(picture(exif=exif_block(), xmp=XMP, icc_profile=SRGB), path)
    data = path.read_bytes()
    for kind in (b"eXIf", b"iCCP", b"iTXt"):
        at = data.index(kind) + 9
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        image = read_image(path)
        assert image.pixels.shape == (3, 5, 7)
        assert kind.decode() in image.metadata.warnings[0]
    assert capfd.readouterr() == ("", "")


def test_a_profile_that_inflates_without_end_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(
        _text_chunk(lambda image, stream: image.save(stream, "PNG", icc_profile=bytes(1 << 25)))
    )
    metadata = read_image(path).metadata
    assert metadata.icc_profile is None
    assert "iCCP" in metadata.warnings[0]
