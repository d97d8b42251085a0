import dataclasses
import math
import tomllib
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from restorekit.engine.recipe import TrainConfig
from restorekit.engine.train import train
from restorekit.errors import ConfigError
from restorekit.hub import load_model
from restorekit.losses import LOSSES, l2_gradient
from restorekit.models import architectures, create_model
from restorekit.models.registry import Batch
from restorekit.ops.color import linear_to_srgb
from restorekit.tasks import TASKS

RECIPES = sorted((Path(__file__).parents[1] / "examples" / "recipes").glob("*kpn*.toml"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    for number in range(3):
        smooth = torch.rand(1, 3, 9, 9, generator=generator)
        picture = torch.nn.functional.interpolate(smooth, (170, 190), mode="bicubic")[0]
        pixels = (picture.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        iio.imwrite(folder / f"{number}.png", pixels)
    return folder


def shrunken(path: Path, photographs: Path, run: Path, **changes: object) -> TrainConfig:
    values = tomllib.loads(path.read_text())
    tiny = dataclasses.asdict(architectures()["ame_kpn"].tiny)
    kept = {"compact", "separable", "channel_attention", "spatial_attention", "residual"}
    switches = {name: values["config"][name] for name in kept & values["config"].keys()}
    places = {"data": [str(photographs)], "run": str(run), "cache": str(run.parent / "cache")}
    sizes = {"steps": 2, "patch": 168, "batch_size": 2, "holdout": 3, "workers": 0}
    return TrainConfig.read(path, {"config": tiny | switches, **places, **sizes, **changes})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_its_network(path: Path, photographs: Path, tmp_path: Path) -> None:
    recipe = TrainConfig.read(path)
    assert recipe.name.replace(".", "_") == path.stem
    assert recipe.run == f"runs/{recipe.name}"
    with torch.device("meta"):
        spec = create_model(recipe.architecture, recipe.config).spec
    assert (spec.frames, spec.in_channels, spec.out_channels) == (8, 8, 1)
    result = train(shrunken(path, photographs, tmp_path / "run"))
    assert result.finished
    assert list(result.validation_psnr) == ["validation gain 1", "validation gain 3"]
    assert all(10 < score < 60 for score in result.validation_psnr.values())
    card = load_model(str(tmp_path / "run")).card
    assert (card.name, card.task) == (recipe.name, "burst")
    assert (card.transfer, card.layout) == ("linear", "gray")


def test_there_is_a_recipe_for_each_published_network() -> None:
    assert [path.stem for path in RECIPES] == [
        "ame_kpn_burst8",
        "ame_kpn_paper",
        "kpn_paper",
        "mkpn_paper",
    ]


def test_published_recipes_follow_the_published_schedule() -> None:
    recipe = TrainConfig.read(RECIPES[1])
    assert (recipe.total_steps, recipe.batch_size) == (80_000, 16)
    assert recipe.rate(0, 0.0) == 1e-4
    epoch = 313
    assert recipe.rate(epoch, epoch / 80_000) == pytest.approx(1e-4 * 10**-0.05)
    assert recipe.rate(79_999, 1.0) == 5e-6
    pair = TASKS["burst"].degradations[recipe.degradation](
        torch.rand(1, 1, recipe.patch, recipe.patch), torch.Generator().manual_seed(0)
    )
    assert pair.clean.shape[2:] == (128, 128)


def test_steps_on_one_batch_beat_the_mean_of_its_frames(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(4, 1, 9, 9, generator=generator), (168, 168), mode="bilinear"
    )
    batch = TASKS["burst"].degradations["burst8"](smooth, generator)
    assert batch.noise_std is not None
    assert batch.white is not None
    network = create_model("ame_kpn", {"compact": True, "widths": (16, 32), "convolutions": 1})
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(60):
        optimiser.zero_grad()
        network.loss(batch, LOSSES["psnr"], step).backward()
        optimiser.step()
    clean, white = linear_to_srgb(batch.clean / batch.white), batch.white
    there = (batch.degraded != 0).flatten(2).any(2).sum(1).view(-1, 1, 1, 1)
    mean = batch.degraded.sum(1, keepdim=True) / there
    with torch.no_grad():
        restored = network(batch.degraded, batch.noise_std)
    before, after = (
        float(LOSSES["psnr"](linear_to_srgb(p / white), clean)) for p in (mean, restored)
    )
    assert after < before - 0.3


def test_networks_and_tasks_must_fit(photographs: Path, tmp_path: Path) -> None:
    config = shrunken(RECIPES[0], photographs, tmp_path / "run")
    with pytest.raises(ConfigError, match="ame_kpn is for bursts; denoise is not"):
        train(dataclasses.replace(config, task="denoise", degradation="", protocol=""))
    with pytest.raises(ConfigError, match="kbnet_xs is for single pictures; burst is not"):
        train(dataclasses.replace(config, architecture="kbnet_xs", config={}))


def test_the_loss_of_kpn_by_hand(generator: torch.Generator) -> None:
    restored = torch.rand(2, 1, 5, 6, generator=generator)
    clean = torch.rand(2, 1, 5, 6, generator=generator)
    error = (restored - clean).numpy().astype(np.float64)
    expected = (error**2).mean() + sum(abs(np.diff(error, axis=a)).mean() for a in (2, 3))
    assert math.isclose(float(l2_gradient(restored, clean)), expected, rel_tol=1e-5)


def test_a_batch_moves_with_its_white() -> None:
    batch = Batch(torch.zeros(1), torch.zeros(1), white=torch.ones(1)).to(torch.device("meta"))
    assert batch.white is not None
    assert batch.white.is_meta
    assert batch.noise_std is None
