import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from restorekit.engine.recipe import TrainConfig
from restorekit.hub import bundled_cards
from restorekit.io import read_image
from restorekit.metrics import psnr
from restorekit.models import create_model

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("scene", "make_examples", "measure_night", "denoise_array"):
        sys.modules.pop(name, None)


def test_the_pictures_are_those_that_the_generator_makes(tmp_path: Path) -> None:
    importlib.import_module("make_examples").main(tmp_path)
    for name in ("night.dng", "night_truth.png", "day.png", "day_truth.png"):
        made, kept = read_image(tmp_path / name), read_image(EXAMPLES / name)
        assert made.metadata.noise == kept.metadata.noise
        difference = (made.pixels - kept.pixels).abs()
        assert float(difference.max()) < 0.02
        assert float(difference.mean()) < 1e-4


def test_scenes_repeat_and_fill_their_range() -> None:
    scene = importlib.import_module("scene")
    for draw in (scene.night, scene.day):
        first = draw(64, 96, torch.Generator().manual_seed(3))
        assert torch.equal(first, draw(64, 96, torch.Generator().manual_seed(3)))
        assert first.shape == (3, 64, 96)
        assert float(first.min()) >= 0
        assert 0.3 < float(first.max()) <= 1


def test_the_night_gains_six_decibels() -> None:
    plain, restored = importlib.import_module("measure_night").main()
    assert restored >= plain + 6


def test_the_array_example_removes_most_noise() -> None:
    before, after = importlib.import_module("denoise_array").main()
    assert before == pytest.approx(25, abs=0.5)
    assert after < before / 3


def test_the_day_is_noisy_by_what_the_script_says() -> None:
    script = importlib.import_module("make_examples")
    noisy, truth = (read_image(EXAMPLES / name).pixels for name in ("day.png", "day_truth.png"))
    middle = (truth > 0.35) & (truth < 0.65)
    assert float((noisy - truth)[middle].std()) == pytest.approx(script.DAY_SIGMA, rel=0.02)
    assert psnr(noisy, truth) < 20


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("recipes/*.toml")), ids=lambda p: p.stem)
def test_recipes_build_their_networks(path: Path) -> None:
    config = TrainConfig.read(path, {"data": ("photographs",)})
    with torch.device("meta"):
        model = create_model(config.architecture, config.config)
    card = bundled_cards().get(config.name)
    if card is not None:
        assert card.config == model.config_values() | {
            key: list(value)
            for key, value in model.config_values().items()
            if isinstance(value, tuple)
        }
