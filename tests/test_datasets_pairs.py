from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from restorekit.datasets import PairedFolder, cache_pairs, find_pairs, find_training_pairs
from restorekit.errors import ConfigError
from restorekit.models.registry import Batch
from tests.pair_folders import LAYOUTS, PAIRS, lay_out, noisy_pair


@pytest.fixture
def paired(tmp_path: Path) -> Callable[..., PairedFolder]:
    """Return pairs whose degraded half is the clean one, 40 brighter."""
    for number in range(3):
        clean = np.random.default_rng(number).integers(0, 200, (20, 30, 3), dtype=np.uint8)
        for name, pixels in (("input", clean + 40), ("target", clean)):
            (tmp_path / name).mkdir(exist_ok=True)
            iio.imwrite(tmp_path / name / f"{number}.png", pixels)

    def build(seed: int = 0, mixup: bool = False, gray: bool = False) -> PairedFolder:
        cache = cache_pairs(find_training_pairs([tmp_path]), tmp_path / "cache")
        return PairedFolder(cache, (0, 1, 2), seed, mixup, gray)

    return build


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_found(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    lay_out(tmp_path, layout)
    (tmp_path / "readme.txt").write_text("no picture")
    pairs = find_pairs(tmp_path)
    names = [
        tuple(str(path.relative_to(tmp_path)) for path in (pair.degraded, pair.clean))
        for pair in pairs
    ]
    assert names == list(files)
    assert len(names) == PAIRS


def test_the_folders_of_a_layout_choose_its_rule(tmp_path: Path) -> None:
    lay_out(tmp_path, "GoPro")
    for scene in ("GOPR0372_07_00", "GOPR0374_11_00"):
        gamma = tmp_path / "train" / scene / "blur_gamma"
        gamma.mkdir()
        iio.imwrite(gamma / "000047.png", noisy_pair(0)[0])
    assert {pair.degraded.parent.name for pair in find_pairs(tmp_path)} == {"blur"}


def test_left_and_right_views_are_left_out(tmp_path: Path) -> None:
    lay_out(tmp_path, "DPDD")
    for view in ("train_l", "train_r"):
        (tmp_path / view / "source").mkdir(parents=True)
        iio.imwrite(tmp_path / view / "source" / "1P0A0832.png", noisy_pair(0)[0])
    assert len(find_pairs(tmp_path)) == PAIRS
    split = [pair.clean.name for pair in find_pairs(tmp_path / "train_c")]
    assert split == ["1P0A0831.png", "1P0A0840.png", "1P0A0851.png", "1P0A0860.png"]


def test_clean_pictures_of_the_other_part_of_hide_are_no_error(tmp_path: Path) -> None:
    lay_out(tmp_path, "HIDE")
    iio.imwrite(tmp_path / "GT" / "of_the_training.png", noisy_pair(0)[1])
    assert len(find_pairs(tmp_path)) == PAIRS
    next((tmp_path / "GT").glob("22*")).unlink()
    with pytest.raises(ConfigError, match="22fromGOPR0950.png has no clean partner"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("folder", "kind"), [("input", "clean"), ("target", "degraded")])
def test_a_file_without_partner_is_named(tmp_path: Path, folder: str, kind: str) -> None:
    lay_out(tmp_path, "Rain13K")
    iio.imwrite(tmp_path / folder / "9.png", noisy_pair(0)[0])
    with pytest.raises(ConfigError, match=f"{folder}/9.png has no {kind} partner$"):
        find_pairs(tmp_path)
    iio.imwrite(tmp_path / folder / "99.png", noisy_pair(0)[0])
    with pytest.raises(ConfigError, match=rf"{folder}/99?\.png .* partner, nor have 1 more$"):
        find_pairs(tmp_path)


def test_two_files_for_one_place_are_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "Rain13K")
    iio.imwrite(tmp_path / "input" / "1.png", noisy_pair(0)[0])
    with pytest.raises(ConfigError, match="1.png and .*1.jpg have the same place"):
        find_pairs(tmp_path)


def test_pairs_of_differing_size_are_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "SIDD")
    truth = next(tmp_path.rglob("0002_GT_SRGB_010.PNG"))
    iio.imwrite(truth, np.zeros((20, 24, 3), np.uint8))
    message = "0002_NOISY_SRGB_010.PNG and .*0002_GT_SRGB_010.PNG differ in size, 32x24 and 24x20"
    with pytest.raises(ConfigError, match=message):
        cache_pairs(find_training_pairs([tmp_path]), tmp_path / "cache")


def test_folders_without_pairs_are_named(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "single.png", noisy_pair(0)[0])
    assert find_pairs(tmp_path) == []
    with pytest.raises(ConfigError, match="no pairs there; it needs the folders input and target"):
        find_training_pairs([tmp_path])
    with pytest.raises(ConfigError, match="is no folder of training pairs"):
        find_training_pairs([tmp_path / "none"])
    with pytest.raises(ConfigError, match="no folder of training pairs is given"):
        find_training_pairs([])


@pytest.mark.parametrize("gray", [False, True])
def test_both_halves_are_cut_and_turned_alike(
    paired: Callable[..., PairedFolder], gray: bool
) -> None:
    batch = paired(gray=gray, mixup=True).batch(0, 60, 12)
    assert batch.degraded.shape == (60, 1 if gray else 3, 12, 12)
    assert batch.noise_std is None
    torch.testing.assert_close(batch.degraded, batch.clean + 40 / 255)


def test_pairs_are_cut_everywhere_and_turned_all_ways(
    paired: Callable[..., PairedFolder],
) -> None:
    crops = {
        bytes(crop.mul(255).round().byte().numpy()) for crop in paired().batch(0, 3000, 20).clean
    }
    assert len(crops) == 3 * 11 * 8


def test_pairs_depend_on_seed_and_index_alone(paired: Callable[..., PairedFolder]) -> None:
    def stacked(*batches: Batch) -> torch.Tensor:
        return torch.cat([torch.stack((batch.degraded, batch.clean), 1) for batch in batches])

    pairs = paired(5, mixup=True)
    whole = stacked(pairs.batch(10, 6, 16))
    assert torch.equal(whole, stacked(pairs.batch(10, 2, 16), pairs.batch(12, 4, 16)))
    assert torch.equal(whole, stacked(paired(5, mixup=True).batch(10, 6, 16)))
    assert not torch.equal(whole, stacked(paired(6, mixup=True).batch(10, 6, 16)))


def test_the_cache_of_pairs_is_built_once(tmp_path: Path) -> None:
    lay_out(tmp_path, "Rain100L")
    pairs = find_training_pairs([tmp_path])
    seen: list[tuple[int, int]] = []
    cache = cache_pairs(pairs, tmp_path / "cache", lambda *done: seen.append(done))
    cache_pairs(pairs, tmp_path / "cache", lambda *done: seen.append(done))
    assert seen[-1] == (2 * PAIRS, 2 * PAIRS)
    assert len(seen) == 2 * PAIRS
    assert cache.names[:2] == ("rain-001.png", "norain-001.png")
    np.testing.assert_array_equal(
        cache.crop(1, 0, 0, *cache.shapes[1]).permute(1, 2, 0), iio.imread(pairs[0].clean)
    )
