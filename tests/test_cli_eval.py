import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import imageio.v3 as iio
import numpy as np
import pytest

from restorekit.cli import main as entry
from restorekit.cli.evaluate import ProtocolName
from restorekit.metrics import PROTOCOLS
from tests.command import Result
from tests.tiny_model import save_tiny
from tests.toy import save_toy

Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            entry.main(["eval", *map(str, words)])
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "cbsd68"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(0).integers(118, 138, (32, 40, 3), dtype=np.uint8)
        iio.imwrite(folder / name, pixels)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "toy")


def test_the_choices_are_the_protocols() -> None:
    assert get_args(ProtocolName) == tuple(PROTOCOLS)


def test_json_rows_follow_the_order_of_sigma(run: Run, data: Path, model: Path) -> None:
    result = run(
        "--protocol", "gaussian-colour", "--data", data, "--model", model, "--device", "cpu",
        "--sigma", "50,15,50,25", "--format", "json",
    )  # fmt: skip
    assert result.code == 0
    rows = json.loads(result.out)
    assert [row["sigma"] for row in rows] == [50, 15, 25]
    assert all(row["ssim"] < 1 for row in rows)
    assert rows[2]["psnr"] == pytest.approx(20.17, abs=0.2)
    assert rows[2]["published"]["KBNet_s"] == 31.80
    assert "seed 0" in result.err


def test_the_table_shows_protocol_and_published_rows(run: Run, data: Path, model: Path) -> None:
    result = run(
        "--task", "denoise", "--data", data, "--model", model, "--method", "none", "--device",
        "cpu", "--sigma", "25",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == PROTOCOLS["gaussian-colour"].summary()
    names = [line.split()[1] for line in lines[3:]]
    assert names == ["toy.test", "none", "DnCNN", "FFDNet", "DRUNet", "Restormer", "KBNet_s"]
    assert lines[-1].split()[-1] == "31.80"
    assert "(published)" in lines[-1]


def test_markdown_and_csv(run: Run, data: Path) -> None:
    words = ("--task", "denoise", "--data", data, "--method", "none", "--sigma", "25")
    markdown = run(*words, "--format", "markdown")
    assert markdown.out.splitlines()[0] == PROTOCOLS["gaussian-colour"].summary()
    assert "| 25 | KBNet_s (published) |" in markdown.out
    table = run(*words, "--format", "csv", "-q")
    assert table.err == ""
    rows = list(csv.DictReader(table.out.splitlines()))
    assert [row["published"] for row in rows] == ["False", *["True"] * 5]


@pytest.mark.parametrize(("option", "suffix"), [("--per-image", ".csv"), ("--plot", ".svg")])
def test_no_picture_is_written_over(
    run: Run, data: Path, model: Path, option: str, suffix: str
) -> None:
    picture = data / "a.png"
    before = picture.read_bytes()
    words = "--task", "denoise", "--data", data, "--model", model, "--sigma", "25", option
    assert run(*words, picture).code in (2, 73)
    assert run(*words, picture.with_suffix(suffix)).code == 73
    assert picture.read_bytes() == before


def test_files_beside_the_table(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    pictures, figure, log = tmp_path / "all.csv", tmp_path / "figure.svg", tmp_path / "log"
    words = (
        "--task", "denoise", "--data", data, "--model", model, "--device", "cpu", "--sigma", "25",
        "--per-image", pictures, "--plot", figure, "-o", log,
    )  # fmt: skip
    first = run(*words)
    assert first.code == 0
    rows = csv.DictReader(pictures.read_text().splitlines())
    assert [row["picture"] for row in rows] == ["a.png", "b.png"]
    assert figure.read_text().startswith("<svg")
    written = (log / "results.jsonl").read_text()
    assert run(*words) == first
    assert (log / "results.jsonl").read_text() == written


def test_pairs(run: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name in ("input", "target"):
        (folder / name).symlink_to(data)
    result = run(
        "--protocol", "derain-y", "--data", folder, "--method", "none", "--format", "json"
    )  # fmt: skip
    (row,) = json.loads(result.out)
    assert (row["psnr"], row["ssim"], row["sigma"]) == (None, pytest.approx(1), None)
    assert "Y of BT.601" in result.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--data", "DATA"), 2, "name a --protocol, or a --task"),
        (("--task", "bake", "--data", "DATA"), 2, "no protocol for the task 'bake'"),
        (("--task", "derain", "--protocol", "sidd", "--data", "DATA"), 2, "sidd measures denoise"),
        (("--task", "denoise", "--data", "none"), 66, "no such folder"),
        (("--task", "denoise", "--data", "DATA", "--sigma", "a"), 2, "numbers such as 15,25,50"),
        (("--task", "denoise", "--data", "DATA", "--sigma", "0"), 2, "not between 0 and 255"),
        (("--protocol", "sidd", "--data", "DATA", "--sigma", "9"), 2, "takes no --sigma"),
        (("--task", "denoise", "--data", "DATA", "--plot", "a.pdf"), 2, ".svg or .png"),
        (("--task", "denoise", "--data", "DATA", "--plot", "a.png"), 2, "nothing to draw"),
        (("--task", "denoise", "--data", "DATA", "--method", "bm3d"), 2, "no method 'bm3d'"),
        (("--task", "denoise", "--data", "DATA", "--per-image", "none/a.csv"), 73, "none/a.csv"),
    ],
)
def test_errors_take_one_line(
    run: Run, data: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    baseline = () if "--method" in words else ("--method", "none")
    result = run(*[data if word == "DATA" else word for word in words], *baseline, "-q")
    assert result.code == code
    assert result.err.startswith("restorekit: error: ")
    assert len(result.err.splitlines()) == 1
    assert message in result.err


def test_models_that_are_not_there(run: Run, data: Path) -> None:
    missing = run("--task", "denoise", "--data", data, "--model", "nowhere")
    assert missing.code == 69
    assert "there is no model 'nowhere'" in missing.err


def test_help_is_there(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert "restorekit eval --protocol gaussian-colour" in result.out


def test_searches_for_patches_are_rows_of_one_set_of_weights(
    run: Run, data: Path, model: Path, tmp_path: Path
) -> None:
    kit = save_tiny(tmp_path / "kit", "kit")
    words = (
        "--protocol", "gaussian-colour", "--data", data, "--sigma", "25", "--device", "cpu",
        "--format", "json", "--model", kit, "--model", model, "-o", tmp_path / "log",
    )  # fmt: skip
    result = run(*words, "--neighbours", "1,2", "--rounds", "1,3")
    assert result.code == 0, result.err
    rows = json.loads(result.out)
    assert [row["model"] for row in rows] == [
        "kit.test neighbours=1 rounds=1",
        "kit.test neighbours=1 rounds=3",
        "kit.test neighbours=2 rounds=1",
        "kit.test neighbours=2 rounds=3",
        "toy.test",
    ]
    assert len({row["parameters"] for row in rows[:4]}) == 1
    assert len({row["macs_layers"] for row in rows[:4]}) == 1
    assert len({row["macs"] for row in rows[:4]}) == 4
    assert len({row["psnr"] for row in rows[:4]}) == 4
    lines = (tmp_path / "log" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 10 - 5  # both pictures have the same bytes
    assert json.loads(run(*words, "--neighbours", "2", "--rounds", "3").out)[0] == rows[3]


def test_searches_of_other_models_are_refused(run: Run, data: Path, model: Path) -> None:
    words = ("--protocol", "gaussian-colour", "--data", data, "--model", model)
    refused = run(*words, "--rounds", "2")
    assert refused.code == 2
    assert "toy.test matches no patches" in refused.err
    for text in ("0", "1,x", ""):
        refused = run(*words, "--neighbours", text)
        assert refused.code == 2
        assert "whole numbers above 0" in refused.err
