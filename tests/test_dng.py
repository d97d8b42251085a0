import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import rawpy
import tifffile
import torch

from restorekit.errors import OutputError, UsageError
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.io import raw, read_image, write_image
from restorekit.io.dng import DngTags, read_dng_tags, write_cfa_dng, write_linear_dng
from restorekit.io.exif import EXIF_IFD, ISO, new_exif
from restorekit.io.ifd import short
from tests.mosaic import dng_tags, rationals, scene, write_mosaic

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


def bayer(height: int, width: int, **metadata) -> Image:
    planes = torch.rand(4, height, width, generator=torch.Generator().manual_seed(1)) - 0.02
    return Image(planes, Transfer.LINEAR, Layout.BAYER, Metadata(**metadata))


@pytest.mark.parametrize("cfa", PATTERNS)
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 40)])
def test_planes_survive_to_16_bits(cfa, size, tmp_path):
    image = bayer(*size, cfa=cfa)
    write_cfa_dng(image, tmp_path / "a.dng")
    again = raw.read_raw(tmp_path / "a.dng")
    assert again.metadata.cfa == cfa
    assert (again.pixels - image.pixels).abs().max() < 0.6 / 65535


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 100), (150, 201)])
def test_planes_survive_to_12_bits_in_smaller_files(size, tmp_path):
    image = bayer(*size, cfa="GRBG")
    write_cfa_dng(image, tmp_path / "a.dng", bits=12)
    again = raw.read_raw(tmp_path / "a.dng")
    assert (again.pixels - image.pixels).abs().max() < 0.7 / 4000
    with rawpy.imread(str(tmp_path / "a.dng")) as source:
        assert source.raw_image.max() <= 4095
    smooth = image.with_pixels(image.pixels.mean() + 0 * image.pixels)
    smooth.pixels[0, 0, 0] += 0.1
    for bits in (12, 16):
        write_cfa_dng(smooth, tmp_path / f"{bits}.dng", bits=bits)
    if min(size) > 60:
        small, large = ((tmp_path / f"{bits}.dng").stat().st_size for bits in (12, 16))
        assert small < large / 2


def test_strong_noise_below_black_and_above_white_survives(generator, tmp_path):
    planes = 0.5 + 0.45 * torch.randn(4, 40, 40, generator=generator).clamp(-2, 2)
    write_cfa_dng(bayer(40, 40).with_pixels(planes), tmp_path / "a.dng")
    again = raw.read_raw(tmp_path / "a.dng").pixels
    assert planes.min() < -0.3
    assert (again - planes).abs().max() < 1.1 / 65535


def test_readers_agree_bit_for_bit(tmp_path):
    path = tmp_path / "a.dng"
    image = bayer(40, 60, cfa="GBRG")
    write_cfa_dng(image, path)
    with tifffile.TiffFile(path) as file:
        stored = file.pages[0].asarray()
        tags = {tag.code: tag.value for tag in file.pages[0].tags}
    with rawpy.imread(str(path)) as source:
        np.testing.assert_array_equal(source.raw_image, stored)
        assert source.black_level_per_channel == [tags[50714]] * 4
        assert source.white_level == tags[50717]
    scale = tags[50717] - tags[50714]
    expected = np.rint(image.pixels[0].numpy() * np.float32(scale) + tags[50714])
    np.testing.assert_array_equal(stored[1::2, 0::2], expected)


@pytest.mark.parametrize("cfa", PATTERNS)
def test_dcraw_reads_the_same_mosaic(cfa, tmp_path):
    if shutil.which("dcraw") is None:
        pytest.skip("needs dcraw, which is not installed")
    path = tmp_path / "a.dng"
    write_cfa_dng(bayer(40, 60, cfa=cfa), path)
    command = ["dcraw", "-D", "-4", "-c", "-t", "0", str(path)]
    pgm = subprocess.run(command, check=True, capture_output=True).stdout
    samples = np.frombuffer(pgm[-80 * 120 * 2 :], ">u2").reshape(80, 120)
    np.testing.assert_array_equal(samples, tifffile.imread(path))


def test_tags_of_a_mosaic(tmp_path):
    metadata = Metadata(
        cfa="GRBG",
        white_balance=(2.0, 1.0, 1.6),
        orientation=6,
        make="Maker",
        model="One",
        noise=NoiseProfile(1e-4, 2e-3),
        exif=new_exif({}, {EXIF_IFD: {ISO: short(800)}}),
    )
    path = tmp_path / "a.dng"
    write_cfa_dng(replace(bayer(64, 80), metadata=metadata), path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        tags = {tag.code: tag.value for tag in page.tags}
        assert page.compression == 1
        assert tags[34665]["ISOSpeedRatings"] == 800
    assert (tags[254], tags[262], tags[277], tags[284]) == (0, 32803, 1, 1)
    assert (tags[271], tags[272], tags[274]) == ("Maker", "One", 6)
    assert (tags[50706], tags[50707]) == (b"\1\4\0\0", b"\1\1\0\0")
    assert (tags[33421], tags[33422], tags[50711]) == ((2, 2), b"\1\0\2\1", 1)
    assert (tags[50719], tags[50720]) == ((8, 8), (160 - 16, 128 - 16))
    assert tags[50829] == (0, 0, 128, 160)
    assert not {322, 323, 324, 325} & tags.keys()
    assert tags[51041] == pytest.approx((1e-4, 4e-6))
    again = raw.read_raw(path).metadata
    assert again.noise.shot == pytest.approx(1e-4)
    assert again.noise.read == pytest.approx(2e-3)
    assert again.white_balance == pytest.approx((2.0, 1.0, 1.6), rel=1e-5)
    assert (again.iso, again.make, again.model, again.orientation) == (800, "Maker", "One", 6)


@pytest.mark.parametrize("time", [1 / 60, 1 / 8000, 30.0, 1.3])
@pytest.mark.parametrize("kind", ["cfa", "linear"])
def test_iso_and_exposure_time_are_stated_without_an_exif_block(kind, time, tmp_path):
    path = tmp_path / "a.dng"
    image = bayer(40, 56, iso=6400, exposure_time=time)
    if kind == "cfa":
        write_cfa_dng(image, path)
    else:
        rgb = Image(image.pixels[:3], Transfer.LINEAR, Layout.RGB, image.metadata)
        write_linear_dng(rgb, path)
    again = raw.read_raw(path).metadata
    assert (again.iso, again.exposure_time) == (6400, pytest.approx(time, rel=1e-5))
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags[34665].value["ISOSpeedRatings"] == 6400


def test_a_stripped_dng_does_not_state_them(tmp_path):
    image = bayer(20, 20, cfa="RGGB", iso=6400, exposure_time=0.1)
    write_image(image, tmp_path / "a.dng", format="cfa-dng", strip="all")
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        assert 34665 not in file.pages[0].tags


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    def imwrite(path, *args, **kwargs):
        raise OSError("1200 requested and 512 written")  # as numpy.ndarray.tofile does

    monkeypatch.setattr(tifffile, "imwrite", imwrite)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        write_image(bayer(20, 20, cfa="RGGB"), tmp_path / "a.dng", format="cfa-dng")
    assert not list(tmp_path.iterdir())


def test_an_xmp_packet_goes_along_but_not_into_developed_pictures(tmp_path):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description crs:Exposure2012='+1'/>"
    tags = [*dng_tags(), (700, 1, len(packet), packet, True)]
    mosaic = scene(40, 60)
    source = tmp_path / "a.dng"
    tifffile.imwrite(source, mosaic, photometric=32803, metadata=None, extratags=tags)
    image = raw.read_raw(source)
    assert image.metadata.xmp == packet
    for format in ("cfa-dng", "dng"):
        write_image(image, tmp_path / "b.dng", format=format)
        with tifffile.TiffFile(tmp_path / "b.dng") as file:
            assert bytes(file.pages[0].tags[700].value) == packet
    assert raw.develop(image).metadata.xmp is None


def test_iptc_records_go_along(tmp_path):
    records = b"\x1c\x02\x78\x00\x05words"
    write_cfa_dng(bayer(16, 20, iptc=records), tmp_path / "a.dng")
    image = read_image(tmp_path / "a.dng")
    assert image.metadata.iptc == records
    for name in ("b.dng", "b.tif", "b.jpg"):
        write_image(image, tmp_path / name)
        assert read_image(tmp_path / name).metadata.iptc == records


def test_a_mosaic_without_a_source_has_the_colors_of_srgb(tmp_path):
    path = tmp_path / "a.dng"
    levels = torch.tensor([0.2, 0.5, 0.5, 0.3]).view(4, 1, 1).expand(4, 20, 20)
    write_cfa_dng(bayer(20, 20).with_pixels(levels), path)
    linear = raw.plain_rendering(path).to_linear().pixels[:, 20, 20]
    torch.testing.assert_close(linear, torch.tensor([0.2, 0.5, 0.3]), atol=2e-3, rtol=0)


def test_linear_dng_of_a_finished_picture_looks_the_same(tmp_path, generator):
    encoded = torch.rand(3, 40, 56, generator=generator)
    path = tmp_path / "a.dng"
    write_linear_dng(Image(encoded, Transfer.SRGB, Layout.RGB), path)
    tags = read_dng_tags(path)
    assert (tags.is_linear, tags.is_float, tags.compression) == (True, False, 1)
    assert (raw.read_raw(path).pixels - encoded).abs().max() < 4e-3


@pytest.mark.parametrize("neutral", [(0.5, 1.0, 0.625), (1.0, 0.8, 0.4)])
def test_both_kinds_of_dng_develop_as_their_source(neutral, tmp_path):
    source = write_mosaic(tmp_path / "a.dng", scene(80, 120), "GBRG", neutral=neutral)
    image = raw.read_raw(source)
    write_cfa_dng(image, tmp_path / "cfa.dng")
    write_linear_dng(raw.demosaic(image), tmp_path / "linear.dng")
    expected = raw.plain_rendering(source).to_linear().pixels.mean((1, 2))
    for name in ("cfa.dng", "linear.dng"):
        mean = raw.plain_rendering(tmp_path / name).to_linear().pixels.mean((1, 2))
        torch.testing.assert_close(mean, expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", ["canon_rggb_14bit.dng", "lowlight_gbrg_12bit.dng"])
def test_real_files_keep_exposure_and_color(name, shared_data, tmp_path):
    image = raw.read_raw(shared_data / "raw" / name)
    write_cfa_dng(image, tmp_path / "a.dng")
    expected = raw.plain_rendering(shared_data / "raw" / name).to_linear().pixels.mean((1, 2))
    again = raw.read_raw(tmp_path / "a.dng")
    assert (again.pixels - image.pixels).abs().max() < 0.6 / 65535
    mean = raw.develop(again).to_linear().pixels.mean((1, 2))
    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=0)


def test_corrections_of_the_source_go_along_unless_the_size_differs(tmp_path):
    source = tmp_path / "a.dng"
    opcodes = {51009: struct.pack(">I", 0), 51022: struct.pack(">I", 0) + b"spare"}
    tags = [*dng_tags(), *((t, 7, len(data), data, True) for t, data in opcodes.items())]
    tags.append(rationals(50730, (0.5,)))
    tifffile.imwrite(source, scene(64, 96), photometric=32803, metadata=None, extratags=tags)
    image = raw.read_raw(source)
    write_cfa_dng(image, tmp_path / "b.dng")
    write_linear_dng(raw.demosaic(image), tmp_path / "c.dng")
    write_cfa_dng(image.crop(0, 0, 16, 16), tmp_path / "d.dng")
    assert read_dng_tags(tmp_path / "b.dng").opcodes == opcodes
    assert read_dng_tags(tmp_path / "c.dng").opcodes == {51022: opcodes[51022]}
    assert read_dng_tags(tmp_path / "d.dng").opcodes == {}
    assert read_dng_tags(tmp_path / "b.dng").baseline_exposure == 0.5


def test_tags_are_found_in_a_sub_directory(tmp_path):
    path = tmp_path / "a.dng"
    main = [tag for tag in dng_tags() if tag[0] in (50706, 50707, 50708, 50721, 50728)]
    matrix = rationals(50722, [2.0, 0, 0, 0, 3.0, 0, 0, 0, 4.0])
    calibration = rationals(50724, [0.5, 0, 0, 0, 1, 0, 0, 0, 1])
    below = [tag for tag in dng_tags() if tag not in main and tag[0] != 50778]
    profile = (51041, 12, 6, (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6), True)
    illuminants = [(50778, 3, 1, 17, True), (50779, 3, 1, 21, True)]
    with tifffile.TiffWriter(path) as file:
        preview = np.zeros((16, 24, 3), np.uint8)
        extra = [*main, *illuminants, matrix, calibration]
        file.write(preview, photometric="rgb", subifds=1, subfiletype=1, metadata=None,
                   extratags=extra)  # fmt: skip
        file.write(scene(64, 96), photometric=32803, metadata=None, extratags=[*below, profile])
    tags = read_dng_tags(path)
    assert tags.noise.shot == pytest.approx(2e-4)
    assert tags.noise.read == pytest.approx(2e-6**0.5)
    assert tags.color_matrix == pytest.approx((1, 0, 0, 0, 3, 0, 0, 0, 4))
    assert tags.as_shot_neutral == pytest.approx((0.5, 1.0, 0.625))
    assert tags.active_size == (64, 96)
    assert raw.read_raw(path).metadata.noise == tags.noise


def test_tags_of_other_files_are_empty(tmp_path):
    (tmp_path / "a.nef").write_bytes(b"MM\0*" + bytes(range(200)))
    (tmp_path / "b.dng").write_bytes(b"")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), np.uint8))
    for name in ("a.nef", "b.dng", "c.tif"):
        assert read_dng_tags(tmp_path / name) == DngTags()


@pytest.mark.parametrize("profile", [(), (0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_a_senseless_noise_profile_is_none(profile):
    assert DngTags(noise_profile=profile).noise is None


def test_pictures_of_the_wrong_layout_are_refused(tmp_path):
    rgb = Image(torch.zeros(3, 8, 8), Transfer.SRGB, Layout.RGB)
    with pytest.raises(UsageError, match="Bayer mosaic"):
        write_cfa_dng(rgb, tmp_path / "a.dng")
    with pytest.raises(UsageError, match="RGB picture"):
        write_linear_dng(bayer(8, 8), tmp_path / "a.dng")
    assert not (tmp_path / "a.dng").exists()
