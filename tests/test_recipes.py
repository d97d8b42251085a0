import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch

from restorekit.engine.recipe import TrainConfig
from restorekit.engine.train import train
from restorekit.errors import ConfigError
from restorekit.hub import load_model
from restorekit.models import architectures, create_model
from restorekit.models.registry import NoiseInput, count_parameters
from restorekit.tasks import TASKS
from tests.pair_folders import lay_out

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
RECIPES = [path for path in sorted(FOLDER.glob("*.toml")) if "kpn" not in path.stem]
PUBLISHED = [path for path in RECIPES if path.stem.startswith("kbnet_s_")]
GAUSSIAN = [path for path in PUBLISHED if "gaussian" in path.stem]
PARAMETERS = {"kbnet_s_sidd": 128.40e6, "kbnet_s_sensenoise": 128.40e6}
SAMPLES_SEEN = 92000 * 64 + 64000 * 40 + 48000 * 24 + 36000 * 16 + 36000 * 8 + 24000 * 8


CHANNELS = {"gray": 1, "rgb": 3, "bayer": 4}


def layout(path: Path) -> str:
    named = {"grey": "gray", "raw": "bayer"}
    return next((value for key, value in named.items() if key in path.stem), "rgb")


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_recipe_is_named_as_its_file_and_builds_its_network(path: Path) -> None:
    config = TrainConfig.read(path)
    assert config.name.replace(".", "_") == path.stem
    assert config.run == f"runs/{config.name}"
    with torch.device("meta"):
        model = create_model(config.architecture, config.config)
    assert next(model.parameters()).is_meta
    assert model.spec.in_channels == CHANNELS[layout(path)]
    assert not (config.pairs and model.spec.noise_input is NoiseInput.STD_MAP)


@pytest.mark.parametrize("path", PUBLISHED, ids=stem)
def test_published_networks_have_the_published_size(path: Path) -> None:
    config = TrainConfig.read(path)
    with torch.device("meta"):
        model = create_model(config.architecture, config.config)
    expected = PARAMETERS.get(path.stem, 141.97e6)
    assert count_parameters(model) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("path", GAUSSIAN, ids=stem)
def test_gaussian_recipes_follow_the_published_schedule(path: Path) -> None:
    config = TrainConfig.read(path)
    sigma = float(path.stem.rpartition("_")[2])
    assert config.sigma == (sigma, sigma)
    assert config.validation_sigma == (sigma,)
    assert config.total_steps == 300_000
    assert config.samples_before(300_000) == SAMPLES_SEEN
    assert config.rate(0, 0.0) == config.rate(91_999, 91_999 / 300_000) == 3e-4
    assert config.rate(196_000, 196 / 300) == pytest.approx((3e-4 + 1e-6) / 2)
    assert config.rate(300_000, 1.0) == pytest.approx(1e-6)


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_shrunken_recipe_takes_a_step(path: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "data", "SIDD")
    values = tomllib.loads(path.read_text())
    tiny = dataclasses.asdict(architectures()[values["architecture"]].tiny)
    kept = {"channels", "noise_map", "lightweight", "ffn_scale"} & values.get("config", {}).keys()
    changes = {
        "config": tiny | {key: values["config"][key] for key in kept},
        "data": [str(tmp_path / "data")],
        "run": str(tmp_path / "run"),
        "cache": str(tmp_path / "cache"),
        "steps": 1,
        "patch": 16,
        "batch_size": 2,
        "flat_steps": 0,
        "progressive": [[1, 16, 2]] if "progressive" in values else [],
        "holdout": 3,
    }
    config = TrainConfig.read(path, changes)
    result = train(config)
    assert result.finished
    expected = [f"validation sigma {sigma:g}" for sigma in config.validation_sigma]
    told = not config.pairs and TASKS[config.task].draws_sigma(config.degradation)
    assert list(result.validation_psnr) == (expected if told else ["validation"])
    card = load_model(config.run).card
    assert card.name == config.name
    assert card.layout == layout(path)


def test_steps_beside_progressive_stages_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("progressive = [[2, 32, 4], [2, 48, 2]]")
    with pytest.raises(ConfigError, match=r"recipe\.toml \(progressive\) have steps of their own"):
        TrainConfig.read(recipe, {"steps": 5})
    assert TrainConfig.read(recipe).total_steps == 4
