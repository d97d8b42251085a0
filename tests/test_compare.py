import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch

from restorekit.engine.compare import write_comparison
from restorekit.errors import OutputExistsError
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.io import write_image


def write_grey(path: Path, level: float, orientation: int = 1, exif: bytes | None = None) -> Path:
    metadata = Metadata(orientation=orientation, exif=exif)
    pixels = torch.full((1, 6, 8), level)
    write_image(Image(pixels, Transfer.SRGB, Layout.GRAY, metadata), path)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_input_is_shown_to_the_left_however_it_is_stored(
    tmp_path: Path, orientation: int
) -> None:
    before = write_grey(tmp_path / "a.png", 0.0, orientation)
    after = write_grey(tmp_path / "b.png", 1.0, orientation)
    write_comparison(before, after, tmp_path / "both.png")
    with PIL.Image.open(tmp_path / "both.png") as picture:
        shown = np.asarray(PIL.ImageOps.exif_transpose(picture))
    half = 6 if orientation >= 5 else 8
    assert shown.shape == (14 - half, 2 * half)
    assert (shown[:, :half] == 0).all()
    assert (shown[:, half:] == 255).all()


def test_a_comparison_leaves_out_the_place_where_asked(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[271] = "Nikon"
    exif.get_ifd(34853)[1] = "N"
    source = write_grey(tmp_path / "a.png", 0.5, exif=exif.tobytes()[6:])
    for strip, kept in (("none", True), ("gps", False)):
        write_comparison(source, source, tmp_path / "both.png", strip=strip, overwrite=True)
        with PIL.Image.open(tmp_path / "both.png") as picture:
            assert picture.getexif()[271] == "Nikon"
            assert (34853 in picture.getexif()) == kept


def test_a_page_holds_both_pictures_and_stays_where_one_is(tmp_path: Path) -> None:
    before = write_grey(tmp_path / "<a> &.png", 0.2)
    after = write_grey(tmp_path / "b.png", 0.7)
    page = tmp_path / "new" / "both.html"
    write_comparison(before, after, page)
    text = page.read_text(encoding="utf-8")
    assert "<title>&lt;a&gt; &amp;.png</title>" in text
    for level, data in zip((0.2, 0.7), re.findall(r"base64,([^\"]+)", text), strict=True):
        shown = np.asarray(PIL.Image.open(BytesIO(b64decode(data))))
        assert shown.shape == (6, 8)
        assert np.abs(shown - 255 * level).max() <= 2
    with pytest.raises(OutputExistsError, match="both.html exists"):
        write_comparison(before, after, page)
    write_comparison(after, before, page, overwrite=True)
    assert "<title>b.png</title>" in page.read_text(encoding="utf-8")
