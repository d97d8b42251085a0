import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restorekit.cli.main import main
from restorekit.engine.curves import CURVES_FILE, draw_curves
from restorekit.engine.training_log import LOG_FILE, TrainingLog
from restorekit.errors import ConfigError

FIRST, SECOND = (0xC2, 0x41, 0x0C), (0x47, 0x5F, 0x7A)


def write_log(run: Path, *, validated: bool = True) -> None:
    log = TrainingLog(run, tensorboard=False)
    for step in (100, 200, 300, 400):
        scores = {"validation sigma 25": 28 + step / 200, "validation sigma 50": 25 + step / 200}
        log.write({"step": step, "loss": 8 / step}, scores if validated else {})


def heights(panel: np.ndarray, colour: tuple[int, int, int]) -> dict[int, float]:
    """Return the mean row of a colour in each column below the legend that has it."""
    rows, columns = np.nonzero((panel == colour).all(-1))
    below = rows > 120
    return {
        int(column): rows[below][columns[below] == column].mean()
        for column in np.unique(columns[below])
    }


def test_curves_fall_and_rise_as_logged(tmp_path: Path) -> None:
    run = tmp_path / "kbnet.run"
    write_log(run)
    assert draw_curves(run) == run / CURVES_FILE
    pixels = np.asarray(Image.open(run / CURVES_FILE))
    left, right = np.split(pixels, 2, axis=1)
    loss, upper, lower = heights(left, FIRST), heights(right, FIRST), heights(right, SECOND)
    assert loss[min(loss)] < loss[max(loss)]
    for curve in (upper, lower):
        columns = [c for c in sorted(curve) if c < max(curve) - 80]
        slope, start = np.polyfit(columns, [curve[c] for c in columns], 1)
        assert slope < 0
        assert max(abs(start + slope * c - curve[c]) for c in columns) < 2
    column = max(c for c in set(upper) & set(lower) if c < max(upper) - 80)
    assert upper[column] < lower[column]


def test_a_run_without_validation_has_one_panel(tmp_path: Path) -> None:
    write_log(tmp_path / "a")
    write_log(tmp_path / "b", validated=False)
    with (
        Image.open(draw_curves(tmp_path / "a")) as both,
        Image.open(draw_curves(tmp_path / "b")) as one,
    ):
        assert both.width == 2 * one.width


def test_one_entry_is_enough(tmp_path: Path) -> None:
    TrainingLog(tmp_path, tensorboard=False).write({"step": 1, "loss": 0.0}, {"validation": 0.0})
    assert draw_curves(tmp_path).is_file()


@pytest.mark.parametrize(
    "entry",
    [
        '{"step": 2, "loss"',
        "[]",
        '{"step": 2, "loss": 1}',
        '{"step": 2, "loss": NaN, "psnr": {}}',
        '{"step": 0, "loss": 1, "psnr": {}}',
        '{"step": 2, "loss": 1, "psnr": {"validation": null}}',
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, entry: str) -> None:
    write_log(tmp_path)
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write(entry + "\n")
    with pytest.raises(ConfigError, match=f"{LOG_FILE}: line 5 is no entry of a training log"):
        draw_curves(tmp_path)


def command(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    return ended.value.code


def test_the_command_prints_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    assert command("--plot", str(tmp_path)) == 0
    assert capsys.readouterr().out == f"{tmp_path / CURVES_FILE}\n"
    assert {path.name for path in tmp_path.iterdir()} == before | {CURVES_FILE}
    assert json.loads((tmp_path / LOG_FILE).read_text().splitlines()[0])["step"] == 100


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_folder_without_a_log_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / LOG_FILE).write_bytes(content)
    assert command("--plot", str(tmp_path)) == ConfigError.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert str(tmp_path / LOG_FILE) in printed.err
    assert not (tmp_path / CURVES_FILE).exists()


def test_a_recipe_beside_plot_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path)
    assert command("recipe.toml", "--plot", str(tmp_path)) == 2
