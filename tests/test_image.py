from typing import Any

import numpy as np
import pytest
import torch

from restorekit.errors import UsageError
from restorekit.image import Image, Layout, Transfer


@pytest.mark.parametrize(
    ("layout", "planes"), [(Layout.RGB, 3), (Layout.GRAY, 1), (Layout.BAYER, 4)]
)
def test_planes_fit_the_layout(layout: Layout, planes: int) -> None:
    for dtype in (torch.float32, torch.float64):
        image = Image(torch.zeros(planes, 4, 5, dtype=dtype), Transfer.LINEAR, layout)
        assert (image.height, image.width) == (4, 5)
    with pytest.raises(UsageError, match=rf"shape \({planes}, height, width\), not \(2, 4, 5\)"):
        Image(torch.zeros(2, 4, 5), Transfer.LINEAR, layout)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (torch.zeros(40, 50, 3), r"not \(40, 50, 3\); see torch\.Tensor\.permute"),
        (torch.zeros(1, 3, 40, 50), r"not \(1, 3, 40, 50\)"),
        (torch.zeros(3, 0, 50), r"not \(3, 0, 50\)"),
        (torch.zeros(3, 40, 50, dtype=torch.uint8), "floating point.*not torch.uint8"),
        (torch.zeros(3, 40, 50, requires_grad=True), r"call detach\(\) first"),
        (np.zeros((3, 40, 50), np.float32), r"not ndarray; see torch\.from_numpy"),
    ],
)
def test_what_is_no_picture_is_refused(pixels: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        Image(pixels, Transfer.SRGB, Layout.RGB)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=reason):
        Image(torch.zeros(3, 4, 5), Transfer.SRGB, Layout.RGB).with_pixels(pixels)


def test_an_alpha_is_one_plane() -> None:
    pixels = torch.zeros(3, 4, 5)
    Image(pixels, Transfer.SRGB, Layout.RGB, alpha=torch.ones(1, 4, 5))
    with pytest.raises(UsageError, match=r"alpha must have the shape .*, not \(4, 5\)"):
        Image(pixels, Transfer.SRGB, Layout.RGB, alpha=torch.ones(4, 5))
