import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from restorekit.datasets import find_training_pairs
from restorekit.engine.evaluate import evaluate
from restorekit.engine.frames import group_files
from restorekit.engine.methods import baseline
from restorekit.engine.recipe import TrainConfig
from restorekit.hub import bundled_cards
from restorekit.io import read_image, write_image
from restorekit.metrics import PROTOCOLS, psnr
from restorekit.models import create_model
from tests.burst_model import save_mean_of_burst

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in (
        "scene",
        "make_examples",
        "measure_night",
        "measure_burst",
        "denoise_array",
        "make_pairs",
        "before_after",
    ):
        sys.modules.pop(name, None)


def test_the_pictures_are_those_that_the_generator_makes(tmp_path: Path) -> None:
    importlib.import_module("make_examples").main(tmp_path)
    shots = [f"burst/shot_{number}.dng" for number in range(1, 9)]
    truths = ["night_truth.png", "day_truth.png", "burst_truth.png"]
    for name in ("night.dng", "day.png", *truths, *shots):
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


def test_the_burst_is_one_and_gains_over_a_frame(tmp_path: Path) -> None:
    plain, _, burst = importlib.import_module("measure_burst").main(
        str(save_mean_of_burst(tmp_path))
    )
    assert burst >= plain + 4
    files = sorted((EXAMPLES / "burst").glob("*.dng"))
    assert group_files(files, "time") == [files]
    assert sum(file.stat().st_size for file in files) < 3e6


def test_the_burst_gains_over_its_best_frame_denoised() -> None:
    if "ame_kpn.burst8" not in bundled_cards():
        pytest.skip("needs the weights ame_kpn.burst8, which are not bundled yet")
    _, single, burst = importlib.import_module("measure_burst").main()
    assert burst > single


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


@pytest.mark.parametrize(
    ("task", "protocol", "sets"),
    [
        ("noise", "sidd", ("noise",)),
        ("rain", "derain-y", ("rain_light", "rain_heavy")),
        ("motion", "gopro", ("motion",)),
        ("defocus", "dpdd", ("defocus",)),
    ],
)
def test_pairs_are_made_measured_and_found_for_training(
    tmp_path: Path, task: str, protocol: str, sets: tuple[str, ...]
) -> None:
    make_pairs = importlib.import_module("make_pairs").make_pairs
    photographs = tmp_path / "photographs"
    for number in range(2):
        clean = read_image(EXAMPLES / "day_truth.png")
        corner = clean.pixels[:, :64, 100 * number : 100 * number + 80]
        write_image(clean.with_pixels(corner), photographs / f"{number}.png")
    for out in ("out", "again"):
        make_pairs(photographs, tmp_path / out, task, seed=3, count=3)
    make_pairs(photographs, tmp_path / "other", task, seed=4)
    measure = PROTOCOLS[protocol]
    for name in sets:
        results = evaluate([baseline("none", measure)], measure, tmp_path / "out" / name).results
        assert len(results) == 3
        assert len({result.digest for result in results}) == 3
        assert 8 < min(result.psnr for result in results) < 45
    first, again, other = (find_training_pairs([tmp_path / o]) for o in ("out", "again", "other"))
    assert (len(first), len(other)) == (3 * len(sets), 2 * len(sets))
    for one, two in zip(first, again, strict=True):
        assert one.degraded.read_bytes() == two.degraded.read_bytes()
    assert first[0].degraded.read_bytes() != other[0].degraded.read_bytes()
    kept = read_image(first[0].clean).pixels, read_image(photographs / "0.png").pixels
    assert torch.equal(*kept) == (task != "noise")


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


def test_pictures_before_and_after(tmp_path: Path) -> None:
    before_after = importlib.import_module("before_after")
    missing = {scene.model for scene in before_after.SCENES.values()} - bundled_cards().keys()
    if missing:
        pytest.skip(f"needs weights that are not bundled yet: {', '.join(sorted(missing))}")
    gains = before_after.main(tmp_path)
    for name, (before, after) in gains.items():
        assert after >= before + 1, name
        picture = read_image(tmp_path / f"{name}.jpg").pixels
        assert picture.shape == (3, before_after.HEIGHT, 2 * before_after.WIDTH)
        assert psnr(picture, read_image(EXAMPLES / "pictures" / f"{name}.jpg").pixels) > 35
