from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch

from restorekit.engine.compare import write_comparison
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
        write_comparison(source, source, tmp_path / "both.png", strip=strip)
        with PIL.Image.open(tmp_path / "both.png") as picture:
            assert picture.getexif()[271] == "Nikon"
            assert (34853 in picture.getexif()) == kept
