import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import imageio.v3 as iio
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from restorekit.engine.evaluate import evaluate
from restorekit.engine.methods import network
from restorekit.engine.recipe import TrainConfig
from restorekit.engine.reporter import SilentReporter
from restorekit.engine.run_folder import CHECKPOINT_FILE, LOCK_FILE
from restorekit.engine.train import train
from restorekit.engine.training_log import LOG_FILE
from restorekit.errors import ConfigError, NoInputError, OutputError, RestorekitError
from restorekit.hub import load_model
from restorekit.metrics import PROTOCOLS
from tests.pair_folders import LAYOUTS, lay_out

TINY = {
    "architecture": "kbnet_xs",
    "config": {
        "width": 8,
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
        "bases": (0, 4),
    },
    "steps": 6,
    "batch_size": 2,
    "patch": 16,
    "warmup_steps": 2,
    "validate_every": 2,
    "holdout": 3,
    "validation_crop": 16,
}

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    for number in range(4):
        smooth = torch.rand(1, 3, 4, 4, generator=generator)
        picture = torch.nn.functional.interpolate(smooth, (24, 40), mode="bicubic")[0].clamp(0, 1)
        pixels = (picture * 255).byte().permute(1, 2, 0).numpy()
        iio.imwrite(folder / f"{number}.png", pixels)
    return folder


def config(photographs: Path, run: Path, **changes: object) -> TrainConfig:
    places = {"data": (str(photographs),), "run": str(run), "cache": str(run.parent / "cache")}
    return TrainConfig.from_values({**TINY, **places, **changes})


def test_a_run_folder_is_a_model(photographs: Path, tmp_path: Path) -> None:
    result = train(config(photographs, tmp_path / "run"))
    assert result.finished
    assert result.steps == 6
    loaded = load_model(str(tmp_path / "run"))
    assert loaded.card.architecture == "kbnet_xs"
    assert loaded.card.scores == result.validation_psnr
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]


def test_training_lowers_the_loss(photographs: Path, tmp_path: Path) -> None:
    train(config(photographs, tmp_path / "run", steps=60, validate_every=20, ema=0.9))
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    first, last = (line["psnr"]["validation sigma 25"] for line in (lines[0], lines[-1]))
    assert last > first + 0.3


@pytest.mark.parametrize("stop_after", [2, 3])
def test_resumed_equals_uninterrupted_bit_for_bit(
    photographs: Path, tmp_path: Path, stop_after: int
) -> None:
    train(config(photographs, tmp_path / "whole"))
    calls = iter(range(100))
    partial = train(config(photographs, tmp_path / "parts"), stop=lambda: next(calls) == stop_after)
    assert not partial.finished
    assert partial.steps == stop_after
    train(config(photographs, tmp_path / "parts"), resume=True)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    parts = load_file(tmp_path / "parts" / "model.safetensors")
    for name, tensor in whole.items():
        assert torch.equal(parts[name], tensor), name
    states = [
        torch.load(tmp_path / run / CHECKPOINT_FILE, weights_only=True)["model"]
        for run in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_accumulated_and_progressive_batches_are_the_same_samples(
    photographs: Path, tmp_path: Path
) -> None:
    stages = {"progressive": ((2, 8, 4), (2, 16, 2)), "validate_every": 4}
    stages |= {"dtype": "float32", "learning_rate": 1e-4}
    train(config(photographs, tmp_path / "whole", **stages))
    train(config(photographs, tmp_path / "pieces", accumulate=2, workers=1, **stages))
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    pieces = load_file(tmp_path / "pieces" / "model.safetensors")
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=1e-4, atol=1e-5)


def recipe_file(folder: Path, **changes: object) -> Path:
    values = {**TINY, "dtype": "float32", **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key != "config"]
    table = [f"{key} = {json.dumps(value)}" for key, value in TINY["config"].items()]
    path = folder / "recipe.toml"
    path.write_text("\n".join([*lines, "[config]", *table]))
    return path


def trained_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / CHECKPOINT_FILE, weights_only=True)["model"]
    return state


def test_two_processes_equal_one(photographs: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, steps=20, learning_rate=1e-4)
    command = ["-m", "restorekit", "train", str(recipe), "--data", str(photographs), "-q"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for run, start in (("one", [sys.executable]), ("two", [*torchrun, "--nproc-per-node", "2"])):
        subprocess.run(
            [*start, *command, "-o", run],
            check=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
        )
    two = trained_weights(tmp_path / "two")
    for name, tensor in trained_weights(tmp_path / "one").items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)


def test_options_pass_through_torchrun() -> None:
    command = [sys.executable, "-m", "restorekit", "train", "--help"]
    env = {**ENVIRONMENT, "COLUMNS": "200", "NO_COLOR": "1"}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    ours = set(re.findall(r"--[a-z-]+", shown)) - {"--help"}
    assert {"--data", "--from", "--max-minutes"} <= ours
    theirs = get_args_parser()._option_string_actions
    assert not [(a, b) for a in ours for b in theirs if b.startswith(a)]


def test_a_killed_run_goes_on_bit_for_bit(photographs: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, steps=60, validate_every=5)
    command = ["-m", "restorekit", "train", str(recipe), "--data", str(photographs), "--resume"]
    start = [sys.executable, *command, "-q", "-o", "killed"]
    process = subprocess.Popen(start, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / LOG_FILE
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
        time.sleep(0.005)
    process.kill()
    process.wait()
    subprocess.run(start, check=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
    train(TrainConfig.read(recipe, {"data": (str(photographs),), "run": str(tmp_path / "whole")}))
    killed = trained_weights(tmp_path / "killed")
    for name, tensor in trained_weights(tmp_path / "whole").items():
        assert torch.equal(killed[name], tensor), name
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(5, 61, 5))


def test_sigterm_leaves_a_run_that_goes_on(photographs: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", str(photographs), "--steps", "100000", "-o", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "restorekit", *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    cache = tmp_path / "runs" / "cache"
    for _ in range(600):
        if list(cache.glob("*.json")):
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "--resume goes on" in said
    assert (tmp_path / "run" / CHECKPOINT_FILE).is_file()


def test_a_schedule_warms_up_stays_flat_and_falls() -> None:
    recipe = TrainConfig(
        steps=1000, warmup_steps=10, flat_steps=400, learning_rate=1.0, final_learning_rate=0.1
    )
    assert recipe.rate(0, 0.0) == pytest.approx(0.1)
    assert recipe.rate(400, 0.4) == 1
    assert recipe.rate(700, 0.7) == pytest.approx(0.55)
    assert recipe.rate(1000, 1.0) == pytest.approx(0.1)
    steps = TrainConfig(
        steps=1000, warmup_steps=0, schedule="step", decay=0.5, decay_every=300, learning_rate=1.0
    )
    assert [steps.rate(step, step / 1000) for step in (0, 299, 301, 601)] == [1, 1, 0.5, 0.25]


def test_stages_follow_each_other() -> None:
    recipe = TrainConfig(progressive=((2, 64, 8), (3, 96, 4)))
    assert recipe.total_steps == 5
    assert [recipe.stage(step) for step in range(5)] == [(64, 8)] * 2 + [(96, 4)] * 3
    assert [recipe.samples_before(step) for step in range(6)] == [0, 8, 16, 20, 24, 28]


def test_a_time_limit_pauses_or_finishes(photographs: Path, tmp_path: Path) -> None:
    paused = train(config(photographs, tmp_path / "paused", steps=10**6, max_minutes=0.005))
    assert not paused.finished
    assert (tmp_path / "paused" / CHECKPOINT_FILE).is_file()
    finished = train(
        config(photographs, tmp_path / "finished", steps=10**6, max_minutes=0.02, finish=True)
    )
    assert finished.finished
    lines = (tmp_path / "finished" / LOG_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["learning_rate"] < 5e-4


def test_an_existing_run_is_not_overwritten(photographs: Path, tmp_path: Path) -> None:
    train(config(photographs, tmp_path / "run"))
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config(photographs, tmp_path / "run"))
    other = config(photographs, tmp_path / "run", seed=3, betas=[0.8, 0.9])
    said = r"other settings: betas \[0.9, 0.99\] there, \[0.8, 0.9\] here; seed 0 there, 3 here$"
    with pytest.raises(ConfigError, match=said):
        train(other, resume=True)


def test_a_run_does_not_take_the_place_of_a_file(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OutputError, match="run cannot hold a run"):
        train(config(photographs, tmp_path / "run"))


def test_two_trainings_do_not_share_a_folder(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / LOCK_FILE), pytest.raises(ConfigError, match="stop it first"):
        train(config(photographs, tmp_path / "run"))
    assert train(config(photographs, tmp_path / "run")).finished


def test_a_loss_that_is_not_finite_ends_the_run(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(RestorekitError, match="not finite at step"):
        train(config(photographs, tmp_path / "run", learning_rate=1e30, clip=1e30, warmup_steps=1))


def test_a_run_starts_from_given_weights(photographs: Path, tmp_path: Path) -> None:
    train(config(photographs, tmp_path / "first"))
    start = str(tmp_path / "first")
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0}
    train(config(photographs, tmp_path / "second", start=start, **still))
    first = load_file(tmp_path / "first" / "model.safetensors")
    second = load_file(tmp_path / "second" / "model.safetensors")
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_start_with_other_inputs_lends_what_fits(photographs: Path, tmp_path: Path) -> None:
    train(config(photographs, tmp_path / "told"))
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0}
    blind = {**TINY["config"], "noise_map": False}
    start = str(tmp_path / "told")
    train(config(photographs, tmp_path / "blind", start=start, config=blind, **still))
    told = load_file(tmp_path / "told" / "model.safetensors")
    lent = load_file(tmp_path / "blind" / "model.safetensors")
    told["stem.weight"] = told["stem.weight"][:, : 4 * 3]
    assert all(torch.allclose(told[name], lent[name], atol=1e-6) for name in told)
    deeper = {**TINY["config"], "middle_blocks": 2}
    reporter = Mock(spec=SilentReporter)
    run = config(photographs, tmp_path / "deeper", start=start, config=deeper, **still)
    train(run, reporter=reporter)
    reporter.note.assert_any_call(f"not in {start}, so fresh at least in part: body.middle.0")
    other = {**TINY["config"], "width": 12}
    with pytest.raises(ConfigError, match="does not fit this architecture"):
        train(config(photographs, tmp_path / "other", start=start, config=other))


def test_a_named_protocol_measures_the_averaged_weights(photographs: Path, tmp_path: Path) -> None:
    settings = {
        "protocol": "gaussian-colour",
        "validation_data": str(photographs),
        "validation_sigma": (25,),
    }
    result = train(config(photographs, tmp_path / "run", **settings))
    assert list(result.validation_psnr) == ["gaussian-colour sigma 25"]
    measured = evaluate(
        [network(load_model(str(tmp_path / "run")), device="cpu", dtype="bfloat16")],
        PROTOCOLS["gaussian-colour"],
        photographs,
        [25],
    )
    found = result.validation_psnr["gaussian-colour sigma 25"]
    assert found == pytest.approx(measured.rows[0].psnr, abs=1e-4)


def test_a_protocol_without_its_pictures_ends_before_training(
    photographs: Path, tmp_path: Path
) -> None:
    settings = {"protocol": "gaussian-colour", "validation_data": str(tmp_path / "nowhere")}
    with pytest.raises(NoInputError, match="nowhere"):
        train(config(photographs, tmp_path / "run", **settings))
    for wrong, said in (
        ({"validation_data": "x"}, "needs a protocol"),
        ({"protocol": "gopro"}, "denoise has no protocol 'gopro'; known: gaussian-colour"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(photographs, tmp_path / "run", **wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_of_every_layout_are_trained_on(tmp_path: Path, layout: str) -> None:
    lay_out(tmp_path / "data", layout)
    network = {**TINY["config"], "noise_map": False}
    settings = {"pairs": True, "config": network, "steps": 2, "ema": 0.0}
    result = train(config(tmp_path / "data", tmp_path / "run", **settings))
    assert list(result.validation_psnr) == ["validation"]
    assert 15 < result.validation_psnr["validation"] < 35


def test_training_on_pairs_goes_on_bit_for_bit(tmp_path: Path) -> None:
    lay_out(tmp_path / "data", "GoPro")
    settings = {"pairs": True, "config": {**TINY["config"], "noise_map": False}, "mixup": True}
    train(config(tmp_path / "data", tmp_path / "whole", **settings))
    calls = iter(range(100))
    parts = config(tmp_path / "data", tmp_path / "parts", **settings)
    train(parts, stop=lambda: next(calls) == 3)
    train(parts, resume=True)
    goal = trained_weights(tmp_path / "whole")
    for name, tensor in trained_weights(tmp_path / "parts").items():
        assert torch.equal(goal[name], tensor), name


def test_pairs_need_a_network_that_is_not_told_the_noise(tmp_path: Path) -> None:
    lay_out(tmp_path / "data", "SIDD")
    with pytest.raises(ConfigError, match="set noise_map = false"):
        train(config(tmp_path / "data", tmp_path / "run", pairs=True))


def test_a_log_that_was_cut_off_goes_on(photographs: Path, tmp_path: Path) -> None:
    calls = iter(range(100))
    changes = {"validate_every": 1}
    train(config(photographs, tmp_path / "run", **changes), stop=lambda: next(calls) == 2)
    log = tmp_path / "run" / LOG_FILE
    with log.open("a") as file:
        file.write('{"step": 3, "lo')
    train(config(photographs, tmp_path / "run", **changes), resume=True)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / LOG_FILE).write_text(log.read_text())
    train(config(photographs, tmp_path / "again", **changes))
    assert len((tmp_path / "again" / LOG_FILE).read_text().splitlines()) == len(steps)


@pytest.mark.parametrize("content", [b"", b"hello", [1, 2], {"model": {}}])
def test_what_is_no_checkpoint_is_refused(
    photographs: Path, tmp_path: Path, content: object
) -> None:
    path = tmp_path / "run" / CHECKPOINT_FILE
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match="is it of another run"):
        train(config(photographs, tmp_path / "run"), resume=True)


def test_a_checkpoint_older_than_a_setting_goes_on(photographs: Path, tmp_path: Path) -> None:
    calls = iter(range(100))
    train(config(photographs, tmp_path / "run"), stop=lambda: next(calls) == 2)
    path = tmp_path / "run" / CHECKPOINT_FILE
    state = torch.load(path, weights_only=True)
    settings = json.loads(state["config"])
    del settings["pairs"], settings["sigma"]
    torch.save({**state, "config": json.dumps(settings)}, path)
    with pytest.raises(ConfigError, match="other settings"):
        train(config(photographs, tmp_path / "run", sigma=[0, 50]), resume=True)
    assert train(config(photographs, tmp_path / "run"), resume=True).finished


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 3", "unknown settings: step"),
        ("steps = 'many'", "steps of the recipe should be of type int"),
        ("steps = 0", "steps must be above 0"),
        ("dtype = 'int8'", "'int8' is no dtype"),
        ("loss = 'l7'", "no loss 'l7'"),
        ("task = 'bake'", "no task 'bake'"),
        ("task = 'derain'\nsigma = [0, 25]", "derain takes no sigma"),
        ("finish = true", "finish needs max_minutes"),
        ("steps =", "is no TOML"),
        ("schedule = 'up'", "schedule must be one of cosine, step"),
        ("sigma = 25", "sigma of the recipe should be of type tuple"),
        ("sigma = ['low', 'high']", "sigma of the recipe should hold numbers"),
        ("sigma = [50, 25]", "sigma must be the least and the greatest deviation"),
        ("sigma = [25]", "sigma must be the least and the greatest deviation"),
        ("pairs = true\nsigma = [25, 25]", "pairs bring their own noise"),
        ("final_learning_rate = 1", "final_learning_rate must not be above learning_rate"),
        ("accumulate = true", "accumulate of the recipe should be of type int"),
        ("learning_rate = true", "learning_rate of the recipe should be of type float"),
        ("betas = [true, 0.9]", "betas of the recipe should hold numbers"),
    ],
)
def test_wrong_recipes_are_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.read(path)


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("progressive", ("[[1, 2]]", "[1, 2, 3]", "[['a', 1, 2]]", "[[2.5, 32, 1]]"), "rows of"),
        ("betas", ("[1.5, 2.0]", "[0.9]", "[nan, 0.9]"), "two numbers"),
        ("validation_sigma", ("[]", "[-5]", "[nan]"), "one or more deviations"),
        ("learning_rate", ("nan", "inf"), "above 0 and finite"),
        ("clip", ("nan",), "above 0 and finite"),
        ("validation_crop", ("0",), "above 0 and finite"),
        ("max_minutes", ("nan", "-1"), "at least 0 and finite"),
        ("weight_decay", ("-1.0",), "at least 0"),
        ("workers", ("-1",), "at least 0"),
        ("flat_steps", ("-1",), "at least 0"),
        ("decay", ("0.0", "-1.0", "1.5", "nan"), "above 0 and at most 1"),
        ("ema", ("1.0", "nan"), "at least 0 and below 1"),
        ("seed", ("99999999999999999999",), "within 64 bits"),
        ("data", ("[1]", "['']"), "names of folders"),
        ("config", ("3",), "a table"),
        ("run", ("''",), "the name of a folder"),
        ("name", ("''", "'../x'", r"'a\b'"), "a name without"),
    ],
)
def test_values_that_make_no_run_are_explained(
    tmp_path: Path, name: str, values: tuple[str, ...], rule: str
) -> None:
    path = tmp_path / "recipe.toml"
    for value in values:
        path.write_text(f"{name} = {value}")
        with pytest.raises(ConfigError, match=f"^{name} must be {rule}"):
            TrainConfig.read(path)


def test_missing_folders_and_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        TrainConfig.read(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is no folder of training pictures"):
        train(config(tmp_path / "none", tmp_path / "run"))
