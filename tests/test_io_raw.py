from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
import torch

from restorekit.errors import DecodeError, UsageError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io import raw
from restorekit.io.dng import write_cfa_dng
from restorekit.ops.color import linear_to_srgb
from tests.mosaic import dng_tags, scene, write_mosaic

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def color_number(cfa: str, row: int, column: int) -> int:
    """Return 0 R, 1 green of the red rows, 2 green of the blue rows, 3 B."""
    color = cfa[2 * (row % 2) + column % 2]
    return {"R": 0, "B": 3}.get(color, 1 if "R" in cfa[2 * (row % 2) :][:2] else 2)


@pytest.mark.parametrize("cfa", PATTERNS)
def test_planes_are_the_samples_less_the_black_of_their_color(cfa, tmp_path):
    black = (100, 110, 120, 130)
    mosaic = np.random.default_rng(0).integers(60, 4000, (40, 56)).astype(np.uint16)
    path = write_mosaic(tmp_path / "a.dng", mosaic, cfa, black=black, white=4000)
    image = raw.read_raw(path)
    expected = np.empty((4, 20, 28))
    for row in range(40):
        for column in range(56):
            level = black[2 * (row % 2) + column % 2]
            value = (float(mosaic[row, column]) - level) / (4000 - level)
            expected[color_number(cfa, row, column), row // 2, column // 2] = value
    assert (image.transfer, image.layout) == (Transfer.LINEAR, Layout.BAYER)
    assert image.pixels.min() < 0
    np.testing.assert_allclose(image.pixels.numpy(), expected, atol=1e-6)
    levels = [black[i] for i in sorted(range(4), key=lambda i: color_number(cfa, i // 2, i % 2))]
    assert image.metadata.black_level == tuple(levels)
    assert (image.metadata.cfa, image.metadata.white_level) == (cfa, 4000)


def test_a_white_balance_that_cannot_be_read_is_a_warning(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(64, 96), neutral=(0.0, 0.0, 0.0))
    metadata = raw.read_raw(path).metadata
    assert metadata.white_balance is None
    assert "white balance" in metadata.warnings[-1]


def test_metadata_of_a_dng(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(64, 96), neutral=(0.5, 1.0, 0.625))
    metadata = raw.read_raw(path).metadata
    assert metadata.white_balance == pytest.approx((2.0, 1.0, 1.6), rel=1e-4)
    assert metadata.color_matrix[:3] == pytest.approx((3.2405, -1.5371, -0.4985))
    assert metadata.path == path
    assert metadata.noise is None


def test_masked_margins_are_left_out(tmp_path):
    mosaic = scene(64, 96)
    tags = [*dng_tags("GRBG"), (50829, 4, 4, (4, 10, 60, 90), True)]
    path = tmp_path / "a.dng"
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=tags)
    image = raw.read_raw(path)
    assert image.pixels.shape == (4, 28, 40)
    value = (float(mosaic[4, 10]) - 256) / (4095 - 256)
    assert image.pixels[1, 0, 0].item() == pytest.approx(value, abs=1e-6)
    assert raw.develop(image).pixels.shape == (3, 56, 80)


@pytest.mark.parametrize("flip", range(8))
def test_flip_is_what_libraw_does(flip, tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(40, 56))
    settings = {"no_auto_bright": True, "output_bps": 16}
    with rawpy.imread(str(path)) as plain:
        expected = UPRIGHT[raw.orientation_of_flip(flip)](
            plain.postprocess(user_flip=0, **settings)
        )
    with rawpy.imread(str(path)) as turned:
        np.testing.assert_array_equal(turned.postprocess(user_flip=flip, **settings), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_develop_turns_upright(orientation, tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(40, 56))
    image = raw.read_raw(path)
    turned = tmp_path / "b.dng"
    write_cfa_dng(replace(image, metadata=replace(image.metadata, orientation=orientation)), turned)
    lying = tmp_path / "c.dng"
    write_cfa_dng(image, lying)
    source = raw.read_raw(turned)
    assert source.metadata.orientation == orientation
    developed = raw.develop(source)
    assert developed.metadata.orientation == 1
    expected = UPRIGHT[orientation](
        raw.develop(raw.read_raw(lying)).pixels.permute(1, 2, 0).numpy()
    )
    np.testing.assert_array_equal(developed.pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("cfa", PATTERNS)
@pytest.mark.parametrize("black", [(256,), (250, 256, 256, 262)])
def test_untouched_planes_develop_to_the_plain_rendering(cfa, black, tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(65, 97), cfa, black=black)
    developed, plain = raw.develop(raw.read_raw(path)), raw.plain_rendering(path)
    assert developed.pixels.shape == plain.pixels.shape == (3, 65, 97)
    difference = (developed.pixels - plain.pixels).abs()
    assert difference.quantile(0.999) < 1e-4
    assert difference.max() < 1e-2
    assert developed.pixels.mean() == pytest.approx(plain.pixels.mean().item(), rel=1e-4)


def test_plain_rendering_is_libraw_with_the_stated_settings(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(64, 96))
    with rawpy.imread(str(path)) as source:
        samples = source.postprocess(
            no_auto_bright=True,
            adjust_maximum_thr=0.0,
            gamma=(1, 1),
            output_bps=16,
            use_camera_wb=True,
            highlight_mode=rawpy.HighlightMode.Ignore,
        )
    expected = linear_to_srgb(torch.from_numpy(samples / 65535.0)).permute(2, 0, 1).float()
    image = raw.plain_rendering(path)
    torch.testing.assert_close(image.pixels, expected)
    assert (image.transfer, image.layout) == (Transfer.SRGB, Layout.RGB)
    assert image.metadata.bit_depth == 16
    assert image.metadata.icc_profile == raw.srgb_profile()


def test_develop_does_not_quantise_to_the_depth_of_the_file(tmp_path):
    mosaic = (np.indices((64, 64)).sum(0) % 60 + 20).astype(np.uint16)
    path = write_mosaic(tmp_path / "a.dng", mosaic, black=(0,), white=100, neutral=(1, 1, 1))
    image = raw.read_raw(path)
    ramp = torch.linspace(0.2, 0.7, 32 * 32).view(32, 32).expand(4, 32, 32)
    levels = raw.develop(image.with_pixels(ramp)).pixels[1].unique()
    assert len(levels) > 900


def test_develop_follows_the_planes(tmp_path):
    image = raw.read_raw(write_mosaic(tmp_path / "a.dng", scene(64, 96)))
    whole = raw.develop(image).to_linear().pixels
    half = raw.develop(image.with_pixels(image.pixels / 2)).to_linear().pixels
    assert (half.mean((1, 2)) / whole.mean((1, 2))).tolist() == pytest.approx([0.5] * 3, rel=2e-3)


def test_demosaic_keeps_the_color_of_the_camera(tmp_path):
    image = raw.read_raw(write_mosaic(tmp_path / "a.dng", scene(64, 96)))
    levels = torch.tensor([0.2, 0.5, 0.5, 0.3]).view(4, 1, 1)
    linear = raw.demosaic(image.with_pixels(levels.expand(4, 32, 48)))
    assert (linear.transfer, linear.layout) == (Transfer.LINEAR, Layout.RGB)
    expected = torch.tensor([0.2, 0.5, 0.3]).view(3, 1, 1).expand(3, 64, 96)
    torch.testing.assert_close(linear.pixels, expected, atol=1e-4, rtol=0)
    assert linear.metadata.color_matrix == image.metadata.color_matrix


def test_part_of_a_raw_picture_is_refused(tmp_path):
    image = raw.read_raw(write_mosaic(tmp_path / "a.dng", scene(64, 96)))
    with pytest.raises(UsageError, match="developed whole"):
        raw.develop(image.crop(4, 4, 16, 16))


def test_planes_without_a_raw_file_are_refused(tmp_path):
    planes = Image(torch.zeros(4, 8, 8), Transfer.LINEAR, Layout.BAYER)
    with pytest.raises(UsageError, match="planes of a RAW file"):
        raw.develop(planes)
    path = write_mosaic(tmp_path / "a.dng", scene(32, 32), "BGGR")
    other = replace(planes, metadata=Metadata(path=path, cfa="RGGB"))
    with pytest.raises(UsageError, match="did not come from this file"):
        raw.demosaic(other)


def test_x_trans_comes_developed(tmp_path):
    cfa = "GBGGRG" "RGRBGB" "GBGGRG" "GRGGBG" "BGBRGR" "GRGGBG"  # fmt: skip
    path = write_mosaic(tmp_path / "a.dng", scene(1200, 1800), cfa, period=6)
    image = raw.read_raw(path)
    assert (image.transfer, image.layout) == (Transfer.SRGB, Layout.RGB)
    assert image.pixels.shape == (3, 1200, 1800)
    assert 0.3 < image.pixels.mean() < 0.9


def test_too_many_megapixels_are_refused(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(64, 96))
    with pytest.raises(DecodeError, match=r"a\.dng: 96 x 64 pixels are above the limit of 0\.001"):
        raw.read_raw(path, max_megapixels=0.001)


def test_a_file_too_short_for_its_size_is_refused_before_decoding(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", scene(64, 96))
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in (256, 257, 278):
            file.pages[0].tags[tag].overwrite(4000)
    with pytest.raises(DecodeError, match=r"cannot hold 16\.0 megapixels"):
        raw.read_raw(path)


def test_a_picture_of_one_value_is_refused(tmp_path):
    path = write_mosaic(tmp_path / "a.dng", np.full((64, 96), 700, np.uint16))
    with pytest.raises(DecodeError, match="every pixel has the same value"):
        raw.read_raw(path)


@pytest.mark.parametrize(
    ("compression", "dtype", "kind"),
    [(8, np.uint16, "deflate"), (52546, np.uint16, "JPEG XL"), (1, np.float32, "floating-point")],
)
def test_kinds_of_dng_that_libraw_cannot_read_are_named(compression, dtype, kind, tmp_path):
    path = tmp_path / "a.dng"
    tifffile.imwrite(
        path,
        scene(64, 96).astype(dtype),
        photometric=32803,
        compression=compression,
        tile=(64, 96),
        metadata=None,
        extratags=dng_tags(),
    )
    with pytest.raises(DecodeError, match=f"{kind}.*DNG converter"):
        raw.read_raw(path)


def test_paths_that_hold_no_raw_file(tmp_path):
    empty, text, noise = tmp_path / "a.nef", tmp_path / "b.nef", tmp_path / "c.bin"
    empty.touch()
    text.write_text("no picture " * 50)
    noise.write_bytes(np.random.default_rng(0).bytes(6000))
    expected = {
        tmp_path / "none.nef": "no such file",
        tmp_path: "is a folder",
        empty: "is empty",
        text: "LibRaw cannot decode",
        noise: "no RAW header",
    }
    for path, message in expected.items():
        with pytest.raises(DecodeError, match=message) as failure:
            raw.read_raw(path)
        assert str(failure.value).startswith(f"{path}: ")
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("canon_g1_gmcy.crw", "four colours"),
        ("canon_r6_pruned.cr3", "cannot decode"),
        ("gopro_vc5_unsupported.gpr", "VC-5"),
        ("nikon_truncated.nef", "cannot decode"),
        ("nikon_768x512_rggb_u16le.bin", "no RAW header"),
        ("pruned_all_zero.dng", "damaged or cut off"),
    ],
)
def test_files_that_cannot_be_read_say_why_in_one_line(name, message, shared_data):
    with pytest.raises(DecodeError, match=message) as failure:
        raw.read_raw(shared_data / "raw" / name)
    assert name in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [("canon_6d_linear.dng", (3, 816, 1224)), ("kodak_c330_yrgb.raw", (3, 912, 1216))],
)
def test_files_without_a_mosaic_come_developed(name, size, shared_data):
    image = raw.read_raw(shared_data / "raw" / name)
    assert (image.transfer, image.layout) == (Transfer.SRGB, Layout.RGB)
    assert image.pixels.shape == size
    assert 0.01 < image.pixels.mean() < 0.9


@pytest.mark.parametrize(
    ("name", "cfa", "size"),
    [
        ("canon_rggb_14bit.dng", "RGGB", (578, 867)),
        ("lowlight_gbrg_12bit.dng", "GBRG", (556, 976)),
        ("kodak_dc50_é.kdc", "GRBG", (256, 384)),
    ],
)
def test_real_files_develop_to_their_plain_rendering(name, cfa, size, shared_data):
    path: Path = shared_data / "raw" / name
    image = raw.read_raw(path)
    assert image.metadata.cfa == cfa
    assert image.pixels.shape == (4, *size)
    assert image.metadata.white_balance[1] == 1
    developed, plain = raw.develop(image), raw.plain_rendering(path)
    assert (developed.pixels - plain.pixels).abs().max() < 1e-4


def test_a_mosaic_of_larger_cells_is_refused(tmp_path: Path) -> None:
    quad = "RRGGRRGGGGBBGGBB"
    path = write_mosaic(tmp_path / "quad.dng", scene(32, 48), quad, period=4)
    with pytest.raises(DecodeError, match="neither Bayer nor X-Trans"):
        raw.read_raw(path)


def test_a_monochrome_sensor_gives_a_grey_picture(tmp_path: Path) -> None:
    path = tmp_path / "grey.dng"
    # Photometric interpretation LinearRaw, which tifffile writes for three samples only.
    tags = [tag for tag in dng_tags() if tag[0] not in (33421, 33422)]
    tifffile.imwrite(path, scene(32, 48), photometric=32803, metadata=None, extratags=tags)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[262].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 2] = (34892).to_bytes(2, "little")
    path.write_bytes(content)
    image = raw.read_raw(path)
    assert (image.layout, image.transfer) == (Layout.GRAY, Transfer.SRGB)
    assert image.pixels.shape == (1, 32, 48)
    assert not image.metadata.warnings
