import numpy as np
import pytest
import torch
from skimage import color as oracle

from restorekit.ops.color import (
    bayer_offsets,
    linear_to_srgb,
    luma,
    pack_bayer,
    srgb_to_linear,
    unpack_bayer,
)

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


def test_srgb_curve_agrees_with_skimage():
    encoded = torch.rand(1, 8, 8, 3, dtype=torch.float64)
    d65 = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
                    [0.019334, 0.119193, 0.950227]])  # fmt: skip
    linear = oracle.rgb2xyz(encoded.numpy()) @ np.linalg.inv(d65).T
    np.testing.assert_allclose(srgb_to_linear(encoded).numpy(), linear, atol=1e-6)


def test_srgb_curve_inverts_on_both_sides_of_black():
    linear = torch.linspace(-0.1, 1.5, 1001, dtype=torch.float64)
    torch.testing.assert_close(srgb_to_linear(linear_to_srgb(linear)), linear)


def test_luma_agrees_with_bt601_of_skimage():
    rgb = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    expected = oracle.rgb2yiq(rgb.permute(0, 2, 3, 1).numpy())[..., 0]
    assert luma(rgb).shape == (2, 1, 5, 7)
    np.testing.assert_allclose(luma(rgb)[:, 0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("cfa", PATTERNS)
def test_pack_bayer_sorts_by_color_and_keeps_g1_in_the_rows_of_red(cfa):
    rows, columns = np.mgrid[:6, :8]
    colors = np.array(list(cfa)).reshape(2, 2)[rows % 2, columns % 2]
    planes = pack_bayer(torch.from_numpy(rows * 8 + columns), cfa)
    red_row = int(np.argwhere(colors == "R")[0, 0])
    for plane, color in zip(planes, "RGGB", strict=True):
        assert (colors.flatten()[plane.flatten()] == color).all()
    assert (planes[1] // 8 % 2 == red_row).all()
    assert (planes[2] // 8 % 2 == 1 - red_row).all()
    assert sorted(planes.flatten().tolist()) == list(range(48))


@pytest.mark.parametrize("cfa", PATTERNS)
def test_unpack_bayer_inverts_pack_bayer(cfa):
    mosaic = torch.rand(3, 10, 6)
    assert torch.equal(unpack_bayer(pack_bayer(mosaic, cfa), cfa), mosaic)


def test_pack_bayer_leaves_out_the_last_line_of_an_odd_side():
    mosaic = torch.rand(7, 9)
    assert torch.equal(pack_bayer(mosaic, "GRBG"), pack_bayer(mosaic[:6, :8], "GRBG"))


def test_another_pattern_is_refused():
    with pytest.raises(ValueError, match="no Bayer pattern"):
        bayer_offsets("RGBG")
