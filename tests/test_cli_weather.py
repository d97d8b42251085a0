"""The commands derain and deblur."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from tests.mosaic import scene, write_mosaic
from tests.test_cli import Run, picture, run
from tests.toy import save_toy

__all__ = ["run"]

Model = Callable[[str], Path]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return lambda task: save_toy(tmp_path / "models" / task, task=task)


def write_psf(path: Path, side: int = 3) -> Path:
    rows, columns = np.mgrid[:side, :side] - side // 2
    iio.imwrite(path, (200 * np.exp(-(rows**2 + columns**2) / 2)).astype(np.uint8))
    return path


@pytest.mark.parametrize("task", ["derain", "deblur"])
def test_a_folder_is_restored(run: Run, model: Model, tmp_path: Path, task: str) -> None:
    sources = [picture(tmp_path / "in" / name) for name in ("a.png", "b.png")]
    words = (tmp_path / "in", "-o", tmp_path / "out", "--model", model(task), "--no-denoise")
    assert run(task, *words).code == 0
    for source in sources:
        np.testing.assert_array_equal(
            iio.imread(tmp_path / "out" / source.name), iio.imread(source)
        )


@pytest.mark.parametrize("task", ["derain", "deblur"])
def test_a_raw_file_is_denoised_and_developed(
    run: Run, model: Model, tmp_path: Path, task: str
) -> None:
    source = write_mosaic(tmp_path / "a.dng", scene(64, 80))
    words = (task, source, "--model", model(task), "--device", "cpu", "--format", "ndjson")
    [record] = run(*words).records
    assert record["output"] == str(tmp_path / f"a_{task}.tif")
    assert record["denoised_by"] == "kbnet_xs.raw"
    assert iio.imread(record["output"]).dtype == np.uint16
    [record] = run(*words, "--noise", "4e-3,6e-3", "--to", "png", "--crop", "4,4,32,20").records
    assert record["noise"] == [4e-3, 6e-3]
    assert iio.imread(record["output"]).shape == (20, 32, 3)
    [record] = run(*words, "--no-denoise", "--on-exist", "overwrite").records
    assert (record["denoised_by"], record["noise"]) == (None, None)
    assert "denoised by kbnet_xs.raw" in run(*words[:-2], "-v", "--on-exist", "rename").out


def test_a_known_blur_needs_no_deblurrer(run: Run, tmp_path: Path) -> None:
    source, psf = picture(tmp_path / "a.png"), write_psf(tmp_path / "psf.png")
    words = ("deblur", source, "--psf", psf, "--device", "cpu", "--format", "ndjson")
    [record] = run(*words, "--noise", "2").records
    assert (record["status"], record["model"]) == ("ok", "kbnet_xs.gaussian")
    assert (record["psf"], record["noise"]) == (str(psf), 2)
    before, after = (iio.imread(path).astype(float) for path in (source, record["output"]))
    assert np.abs(after - before).mean() > 5


def test_what_the_commands_refuse(run: Run, model: Model, tmp_path: Path) -> None:
    source, psf = picture(tmp_path / "a.png"), write_psf(tmp_path / "psf.png")
    shot = write_mosaic(tmp_path / "b.dng", scene(64, 80))
    flat = tmp_path / "flat.png"
    iio.imwrite(flat, np.full((5, 5), 7, np.uint8))
    wide = write_psf(tmp_path / "wide.png", 41)
    over = ("--on-exist", "overwrite")
    rain, blur = ("--model", model("derain")), ("--model", model("deblur"))
    refused: list[tuple[int, str, tuple[Any, ...]]] = [
        (2, "derain gives a developed picture", ("derain", shot, *rain, "--to", "dng")),
        (2, "deblur gives a developed picture", ("deblur", shot, *blur, "-o", "c.dng")),
        (2, "derain takes no --psf", ("derain", source, *rain, "--psf", psf)),
        (2, "denoise takes no --psf", ("denoise", source, "--psf", psf)),
        (2, "denoise takes no --no-denoise", ("denoise", shot, "--no-denoise")),
        (2, "leave out --noise", ("derain", source, *rain, "--noise", "5")),
        (2, "no prior for a known blur", ("deblur", source, *blur, "--psf", psf)),
        (2, "all pixels here are alike", ("deblur", source, "--psf", flat)),
        (2, "larger than the picture", ("deblur", source, "--psf", wide)),
        (2, "is an input", ("deblur", source, "--psf", psf, "--compare", psf, *over)),
        (73, "is an input", ("deblur", source, "--psf", psf, "-o", psf, *over)),
        (66, "none.png", ("deblur", source, "--psf", tmp_path / "none.png")),
    ]
    before = sorted(tmp_path.iterdir())
    for code, message, words in refused:
        result = run(*words, "--device", "cpu")
        assert (result.code, result.out, result.err.count("\n")) == (code, "", 1), words
        assert message in result.err
    assert sorted(tmp_path.iterdir()) == before


def test_the_help_offers_what_a_task_takes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERMINAL_WIDTH", "120")
    offered = {
        "denoise": ("cfa-dng", "--to dng"),
        "derain": ("--no-denoise", "shot_derain.tif"),
        "deblur": ("--no-denoise", "shot_deblur.tif", "--psf psf.png", "kbnet_xs.gaussian"),
    }
    texts = {task: run(task, "-h").out for task in offered}
    for task, words in offered.items():
        assert all(word in texts[task] for word in words)
    assert not any(word in texts["denoise"] for word in ("--psf", "--no-denoise"))
    assert not any(word in texts["derain"] for word in ("--psf", "cfa-dng", "--to dng"))
    assert "cfa-dng" not in texts["deblur"]
