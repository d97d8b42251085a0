from pathlib import Path

import pytest
import torch
from torch import Tensor

from restorekit.engine.guard import BLOCK, OWN_ERROR, guarded
from restorekit.engine.picture import RestoreOptions, restore_image
from restorekit.errors import UsageError
from restorekit.hub import bundled_cards, load_model
from restorekit.image import Image, Layout, Transfer
from restorekit.io import read_image
from restorekit.metrics import psnr
from tests.blend_model import BlendConfig, BlendModel, loaded, picture

CPU = RestoreOptions(device="cpu", noise=5.0)
PICTURES = 6
SIDE = 256


def noise(*shape: int, std: float, seed: int = 0) -> Tensor:
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_small_corrections_vanish_and_large_ones_stay() -> None:
    entered = torch.full((3, 4 * BLOCK, 5 * BLOCK), 0.5)
    for factor, kept in ((0.5, 0.0), (2.0, 0.75), (10.0, 0.99)):
        correction = noise(*entered.shape, std=factor * OWN_ERROR)
        change = guarded(entered, entered + correction) - entered
        share = float((change * correction).sum() / correction.square().sum())
        assert share == pytest.approx(kept, abs=0.02)


def test_what_is_not_kept_is_the_input_bit_for_bit() -> None:
    entered = picture(70, 45).pixels
    small = noise(*entered.shape, std=0.5 * OWN_ERROR)
    assert torch.equal(guarded(entered, entered + small), entered)
    assert torch.equal(guarded(entered, entered.clone()), entered)


def test_a_part_on_the_grid_is_guarded_as_in_the_whole() -> None:
    entered = picture(5 * BLOCK + 7, 6 * BLOCK).pixels
    restored = entered + noise(*entered.shape, std=2 * OWN_ERROR) * entered
    rows, columns = slice(BLOCK, 4 * BLOCK), slice(2 * BLOCK, None)
    whole = guarded(entered, restored)[:, rows, columns]
    part = guarded(entered[:, rows, columns], restored[:, rows, columns])
    inner = slice(BLOCK // 2, -BLOCK // 2)
    torch.testing.assert_close(part[:, inner, inner], whole[:, inner, inner])


def test_a_large_correction_in_one_place_leaves_the_rest_alone() -> None:
    entered = picture(4 * BLOCK, 4 * BLOCK).pixels
    restored = entered + noise(*entered.shape, std=0.3 * OWN_ERROR)
    restored[:, :BLOCK, :BLOCK] -= 0.2
    result = guarded(entered, restored)
    inner = slice(4, BLOCK // 2)
    assert float((result - restored)[:, inner, inner].abs().max()) < 0.01
    assert torch.equal(result[..., 2 * BLOCK :], entered[..., 2 * BLOCK :])


def test_good_pictures_lose_at_most_half_a_decibel_to_a_restless_network() -> None:
    clean = picture(8 * BLOCK, 8 * BLOCK).pixels
    for quality in (38.0, 41.0, 45.0):
        entered = clean + noise(*clean.shape, std=10 ** (-quality / 20))
        own = noise(1, 3, 8, 8, std=1.0, seed=1).exp().clamp(max=1.3) * OWN_ERROR
        own = torch.nn.functional.interpolate(own, scale_factor=BLOCK)[0]
        restored = entered + own * noise(*clean.shape, std=1.0, seed=2).sign()
        assert psnr(restored, clean) < quality - 0.5
        assert psnr(guarded(entered, restored), clean) > quality - 0.5


def test_networks_that_are_not_told_the_noise_are_guarded() -> None:
    image = picture(40, 56)
    image = image.with_pixels(image.pixels * 0.2)
    model = BlendModel(BlendConfig(gain=0.1))
    plain, _ = restore_image(image, loaded(model), CPU)
    correction = plain.pixels - image.pixels
    assert 0 < float(correction.square().mean().sqrt()) < 2 * OWN_ERROR
    for task in ("derain", "deblur"):
        result, _ = restore_image(image, loaded(model, task=task), CPU)
        assert torch.equal(result.pixels, guarded(image.pixels, plain.pixels))
        assert not torch.equal(result.pixels, plain.pixels)


def test_a_mosaic_is_not_for_networks_of_developed_pictures() -> None:
    with pytest.raises(UsageError, match="develop the RAW first"):
        restore_image(picture(8, 8, Layout.BAYER), loaded(BlendModel(BlendConfig()), task="derain"))


@pytest.mark.parametrize("name", ["kbnet_xs.rain", "kbnet_xs.motion", "kbnet_xs.defocus"])
@pytest.mark.parametrize("quality", [38.0, 41.0, 45.0])
def test_bundled_networks_spare_good_photographs(
    shared_data: Path, name: str, quality: float
) -> None:
    if name not in bundled_cards():
        pytest.skip(f"{name} is not bundled")
    model = load_model(name)
    losses = []
    for path in sorted((shared_data / "test" / "kodak24").iterdir())[12 : 12 + PICTURES]:
        clean = read_image(path).pixels[:, 100 : 100 + SIDE, 100 : 100 + SIDE]
        entered = (clean + noise(*clean.shape, std=10 ** (-quality / 20))).clamp(0, 1)
        image = Image((entered * 255).round() / 255, Transfer.SRGB, Layout.RGB)
        restored, _ = restore_image(image, model, RestoreOptions(device="cpu"))
        losses.append(psnr(image.pixels, clean) - psnr(restored.pixels.clamp(0, 1), clean))
    assert max(losses) <= 0.5
