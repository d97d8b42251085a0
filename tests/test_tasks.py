from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from restorekit.engine.evaluate import evaluate
from restorekit.engine.methods import baseline, network
from restorekit.engine.recipe import TrainConfig
from restorekit.engine.train import train
from restorekit.errors import ConfigError
from restorekit.hub import load_model
from restorekit.metrics import PROTOCOLS
from restorekit.tasks import TASKS
from tests.pair_folders import PAIRS, lay_out

MADE = [
    (task.name, name) for task in TASKS.values() for name in task.degradations if not task.burst
]
UNTOLD = [(task, name) for task, name in MADE if not TASKS[task].takes_noise_level]
SPARING = [(task, name) for task, name in UNTOLD if name != "straight"]
NETWORK = {
    "width": 8,
    "encoder_blocks": (1,),
    "middle_blocks": 1,
    "decoder_blocks": (1,),
    "bases": (0, 4),
    "noise_map": False,
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(data: Path, run: Path, **changes: object) -> TrainConfig:
    values = {
        "architecture": "kbnet_xs",
        "config": NETWORK,
        "data": (str(data),),
        "run": str(run),
        "cache": str(run.parent / "cache"),
        "steps": 2,
        "batch_size": 2,
        "patch": 24,
        "ema": 0.0,
        "holdout": 3,
        "validation_crop": 24,
    }
    return TrainConfig.from_values({**values, **changes})


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photographs").mkdir()
    for seed in range(4):
        pixels = torch.randint(0, 256, (40, 48, 3), generator=seeded(seed), dtype=torch.uint8)
        iio.imwrite(tmp_path / "photographs" / f"{seed}.png", pixels.numpy())
    return tmp_path / "photographs"


def test_tasks_are_found_by_their_name() -> None:
    assert list(TASKS) == [task.name for task in TASKS.values()]
    assert MADE[:5] == [
        ("denoise", "gaussian"),
        ("denoise", "raw"),
        ("denoise", "photo"),
        ("derain", "rain"),
        ("deblur", "motion"),
    ]


@pytest.mark.parametrize(("task", "name"), MADE)
def test_pairs_hold_the_clean_pictures_and_repeat(task: str, name: str) -> None:
    clean = torch.rand(4, 3, 40, 48, generator=seeded(0))
    degrade = TASKS[task].degradations[name]
    first, again, other = (degrade(clean, seeded(seed)) for seed in (1, 1, 2))
    if name not in ("raw", "photo"):
        assert torch.equal(first.clean, clean)
    assert first.degraded.shape == first.clean.shape
    assert torch.equal(first.degraded, again.degraded)
    assert not torch.equal(first.degraded, other.degraded)
    assert (first.noise_std is None) == (not TASKS[task].takes_noise_level)


def test_raw_pairs_are_mosaics_whose_noise_is_white_and_told() -> None:
    clean = torch.rand(6, 3, 1, 1, generator=seeded(0)).expand(-1, -1, 120, 120)
    pairs = TASKS["denoise"].degradations["raw"](clean, seeded(1))
    assert pairs.degraded.shape == (6, 4, 60, 60)
    assert pairs.noise_std is not None
    noise = pairs.degraded - pairs.clean
    bright = pairs.clean[:, 1] > 0.2
    assert bright.any()
    told = pairs.noise_std[:, 0].expand_as(bright)[bright]
    assert (noise[:, 1][bright] / told).std() == pytest.approx(1, abs=0.03)
    assert abs(float((noise[:, 1][bright] / told).mean())) < 0.05


def test_pairs_of_photographs_have_the_noise_that_is_told() -> None:
    clean = torch.rand(40, 3, 1, 1, generator=seeded(0)).expand(-1, -1, 47, 51)
    pairs = TASKS["denoise"].degradations["photo"](clean, seeded(1))
    assert pairs.degraded.shape == pairs.clean.shape == (40, 3, 46, 50)
    assert pairs.noise_std is not None
    noise = (pairs.degraded - pairs.clean).flatten(1)
    torch.testing.assert_close(noise.std(1), pairs.noise_std.flatten())
    # Strong noise that is cut off at black or white has no mean of 0.
    assert (noise.mean(1).abs() < 0.004 + 0.6 * noise.std(1)).all()
    assert (pairs.noise_std < 2 / 255).any()
    assert (pairs.noise_std > 20 / 255).any()


@pytest.mark.parametrize(("degradation", "channels"), [("raw", 3), ("gaussian", 4)])
def test_planes_that_do_not_fit_the_network_are_named(
    photographs: Path, tmp_path: Path, degradation: str, channels: int
) -> None:
    network = {**NETWORK, "noise_map": True, "channels": channels}
    with pytest.raises(ConfigError, match=rf"takes {channels} planes, {degradation} makes"):
        train(config(photographs, tmp_path / "run", degradation=degradation, config=network))


@pytest.mark.parametrize(("task", "name"), SPARING)
def test_some_pictures_are_spared(task: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restorekit.degradations.photographs.NOISY_SHARE", 0.0)
    monkeypatch.setattr("restorekit.degradations.photographs.JPEG_SHARE", 0.0)
    clean = torch.randint(0, 256, (1, 3, 24, 24), generator=seeded(0)) / 255
    clean = clean.expand(200, -1, -1, -1)
    pairs = TASKS[task].degradations[name](clean, seeded(1))
    same = (pairs.degraded == pairs.clean).flatten(1).all(1)
    assert 8 <= int(same.sum()) <= 40


@pytest.mark.parametrize(("task", "name"), UNTOLD)
def test_made_pairs_are_trained_on(photographs: Path, tmp_path: Path, task: str, name: str) -> None:
    recipe = config(photographs, tmp_path / "run", task=task, degradation=name)
    result = train(recipe)
    assert list(result.validation_psnr) == ["validation"]
    assert load_model(str(tmp_path / "run")).card.task == task
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0, "start": str(tmp_path / "run")}
    again = train(config(photographs, tmp_path / "b", task=task, degradation=name, **still))
    assert again.validation_psnr == pytest.approx(result.validation_psnr, abs=1e-3)


def test_the_first_degradation_is_the_default(photographs: Path, tmp_path: Path) -> None:
    scores = {
        name: train(config(photographs, tmp_path / f"r{name}", task="deblur", degradation=name))
        for name in ("", "motion", "defocus")
    }
    assert scores[""].validation_psnr == scores["motion"].validation_psnr
    assert scores[""].validation_psnr != scores["defocus"].validation_psnr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"degradation": "rain"}, "denoise has no degradation 'rain'; known: gaussian"),
        ({"task": "deblur", "degradation": "rain"}, "known: motion, defocus, straight"),
        ({"task": "derain", "sigma": (0.0, 25.0)}, "derain takes no sigma"),
        ({"task": "derain", "pairs": True, "degradation": "rain"}, "leave degradation and sigma"),
    ],
)
def test_settings_that_do_not_fit_a_task(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_networks_that_want_the_noise_cannot_learn_other_tasks(
    photographs: Path, tmp_path: Path
) -> None:
    told = {**NETWORK, "noise_map": True}
    with pytest.raises(ConfigError, match="derain does not state; set noise_map = false"):
        train(config(photographs, tmp_path / "run", task="derain", config=told))


@pytest.mark.parametrize(
    ("layout", "task", "protocol"),
    [
        ("Rain13K", "derain", "derain-y"),
        ("GoPro", "deblur", "gopro"),
        ("DPDD", "deblur", "dpdd"),
    ],
)
def test_published_sets_are_trained_on_and_measured(
    tmp_path: Path, layout: str, task: str, protocol: str
) -> None:
    lay_out(tmp_path / "data", layout)
    train(config(tmp_path / "data", tmp_path / "run", task=task, pairs=True, patch=16))
    measure = PROTOCOLS[protocol]
    trained = network(load_model(str(tmp_path / "run")), device="cpu")
    own, none = evaluate([trained, baseline("none", measure)], measure, tmp_path / "data").rows
    assert measure.task == task
    assert (own.pictures, none.pictures) == (PAIRS, PAIRS)
    assert 22 < none.psnr < 32
    assert abs(own.psnr - none.psnr) < 12
