from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.degradations import jpeg, random_jpeg


def smooth(*shape: int) -> torch.Tensor:
    coarse = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return coarse.repeat_interleave(8, -1).repeat_interleave(8, -2)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_jpeg_equals_a_file_written_by_pillow(mode: str, channels: int, tmp_path: Path) -> None:
    picture = smooth(channels, 6, 5)
    samples = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples.squeeze()).save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == mode
        expected = np.array(stored).reshape(samples.shape)
    decoded = jpeg(picture, 60)
    np.testing.assert_array_equal((decoded * 255).round().byte().permute(1, 2, 0), expected)
    assert not torch.equal(decoded, picture)


def test_full_colour_resolution_is_closer() -> None:
    picture = smooth(3, 16, 16)
    coarse, fine = (jpeg(picture, 90, s) for s in ("4:2:0", "4:4:4"))
    assert (fine - picture).square().mean() < (coarse - picture).square().mean()


def test_quality_decides_the_error() -> None:
    picture = smooth(2, 3, 16, 16)
    errors = [float((jpeg(picture, q) - picture).square().mean()) for q in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_values_outside_the_range_are_clipped() -> None:
    picture = torch.full((1, 16, 16), 1.7)
    assert torch.equal(jpeg(picture, 95), torch.ones(1, 16, 16))


def test_random_jpeg_draws_from_its_generator_alone() -> None:
    pictures = smooth(1, 3, 8, 8).expand(6, -1, -1, -1)
    first, again, other = (
        random_jpeg(pictures, 20, 90, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first, dim=0)) > 1


def test_random_jpeg_of_one_quality_is_jpeg() -> None:
    picture = smooth(3, 8, 8)
    seen = set()
    for seed in range(12):
        drawn = random_jpeg(picture, 75, 75, torch.Generator().manual_seed(seed))
        matches = [s for s in ("4:4:4", "4:2:0") if torch.equal(drawn, jpeg(picture, 75, s))]
        seen.update(matches)
        assert matches
    assert seen == {"4:4:4", "4:2:0"}
