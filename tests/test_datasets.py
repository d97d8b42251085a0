from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from restorekit.datasets import PictureCache, SyntheticPairs, find_pictures
from restorekit.errors import ConfigError
from restorekit.models.registry import Batch
from restorekit.tasks import TASKS

GAUSSIAN = TASKS["denoise"].degradations["gaussian"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "deeper").mkdir()
    iio.imwrite(tmp_path / "a.png", random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    iio.imwrite(tmp_path / "deeper" / "b.png", random.integers(0, 256, (9, 50), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def same(clean: Tensor, generator: Generator) -> Batch:
    return Batch(clean, clean)


def test_cache_holds_the_pixels(folder: Path, tmp_path: Path) -> None:
    paths = find_pictures([folder])
    assert [path.name for path in paths] == ["a.png", "b.png"]
    cache = PictureCache.build(paths, tmp_path / "cache")
    colour = iio.imread(folder / "a.png")
    np.testing.assert_array_equal(cache.crop(0, 3, 4, 10, 12).permute(1, 2, 0), colour[3:13, 4:16])
    grey = iio.imread(folder / "deeper" / "b.png")
    np.testing.assert_array_equal(cache.crop(1, 0, 0, 9, 50)[2], grey)


def test_cache_is_built_once_and_again_after_a_change(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = find_pictures([folder])
    PictureCache.build(paths, tmp_path / "cache", lambda *done: seen.append(done))
    PictureCache.build(paths, tmp_path / "cache", lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    iio.imwrite(paths[0], np.zeros((5, 5, 3), np.uint8))
    assert PictureCache.build(paths, tmp_path / "cache").shapes[0] == (5, 5)


def test_samples_depend_on_seed_and_index_alone(folder: Path, tmp_path: Path) -> None:
    cache = PictureCache.build(find_pictures([folder]), tmp_path / "cache")
    pairs = SyntheticPairs(cache, (0, 1), seed=5, degrade=GAUSSIAN)
    whole = pairs.batch(10, 6, 8)
    parts = [pairs.batch(10, 2, 8), pairs.batch(12, 4, 8)]
    assert torch.equal(whole.degraded, torch.cat([part.degraded for part in parts]))
    assert torch.equal(whole.clean, torch.cat([part.clean for part in parts]))
    other = SyntheticPairs(cache, (0, 1), seed=6, degrade=GAUSSIAN)
    assert not torch.equal(other.batch(10, 6, 8).clean, whole.clean)


def test_crops_cover_flips_and_rotations(folder: Path, tmp_path: Path) -> None:
    cache = PictureCache.build(find_pictures([folder]), tmp_path / "cache")
    pairs = SyntheticPairs(cache, (0,), seed=0, degrade=same)
    crops = {bytes((c * 255).round().byte().numpy()) for c in pairs.batch(0, 1000, 20).clean}
    assert len(crops) == 11 * 8


def test_mixtures_state_their_noise(folder: Path, tmp_path: Path) -> None:
    paths = [folder / "a.png"]
    iio.imwrite(paths[0], np.full((80, 80, 3), 128, np.uint8))
    cache = PictureCache.build(paths, tmp_path / "cache")
    pairs = SyntheticPairs(cache, (0,), seed=0, mixup=True, degrade=GAUSSIAN)
    batch = pairs.batch(0, 40, 64)
    assert batch.noise_std is not None
    measured = (batch.degraded - batch.clean).std((1, 2, 3))
    torch.testing.assert_close(measured, batch.noise_std[:, 0, 0, 0], rtol=0.05, atol=1e-3)


def test_grey_samples_have_one_plane(folder: Path, tmp_path: Path) -> None:
    cache = PictureCache.build(find_pictures([folder]), tmp_path / "cache")
    pairs = SyntheticPairs(cache, (0, 1), seed=0, gray=True, degrade=same)
    batch = pairs.batch(0, 3, 8)
    assert batch.clean.shape == (3, 1, 8, 8)


def test_small_pictures_are_repeated(folder: Path, tmp_path: Path) -> None:
    cache = PictureCache.build(find_pictures([folder]), tmp_path / "cache")
    pairs = SyntheticPairs(cache, (1,), seed=0, degrade=same)
    assert pairs.batch(0, 2, 16).clean.shape == (2, 3, 16, 16)


def test_denoise_pairs_have_the_noise_that_they_state() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = GAUSSIAN(torch.full((8, 3, 64, 64), 0.5), generator)
    assert batch.noise_std is not None
    measured = (batch.degraded - batch.clean).std((1, 2, 3))
    torch.testing.assert_close(measured, batch.noise_std[:, 0, 0, 0], rtol=0.03, atol=1e-4)
    assert 0 < batch.noise_std.min() < batch.noise_std.max() < 75 / 255


def test_linked_folders_are_walked_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    (folder / "deeper" / "up").symlink_to(folder)
    (folder / "other").symlink_to(folder / "deeper")
    names = [str(path.relative_to(folder)) for path in find_pictures([folder])]
    assert names == ["a.png", "deeper/b.png", "other/b.png"]


def test_the_range_of_the_noise_can_be_one_value() -> None:
    clean = torch.full((4, 1, 128, 128), 0.5)
    batch = GAUSSIAN(clean, torch.Generator().manual_seed(0), (25, 25))
    assert batch.noise_std is not None
    torch.testing.assert_close(batch.noise_std, torch.full((4, 1, 1, 1), 25 / 255))
    assert float((batch.degraded - clean).std()) == pytest.approx(25 / 255, rel=0.01)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures in"):
        find_pictures([tmp_path])
