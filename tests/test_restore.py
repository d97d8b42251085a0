import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restorekit import io
from restorekit.engine.reporter import SilentReporter
from restorekit.engine.restore import (
    FileRecord,
    Job,
    OutputOptions,
    RestoreOptions,
    restore_files,
)
from restorekit.errors import UnavailableError
from restorekit.hub import save_model
from restorekit.models import registry
from restorekit.tasks import TASKS
from tests.blend_model import CARD, BlendConfig, BlendModel, loaded

TASK = TASKS["denoise"]


@pytest.fixture
def folder_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model folder of an identity network that is registered for one test."""
    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))
    registry.register_model("blend_test", BlendConfig, tiny=BlendConfig())(BlendModel)
    save_model(BlendModel(BlendConfig()), CARD, tmp_path / "model")
    return tmp_path / "model"


Run = Callable[..., list[FileRecord]]


@pytest.fixture
def run(folder_model: Path) -> Run:
    def run(*jobs: tuple[Path, Path], on_exist: str = "error", **options: Any) -> list[FileRecord]:
        return list(
            restore_files(
                [Job(*job) for job in jobs],
                TASK,
                RestoreOptions(model=str(folder_model), device="cpu", noise=5.0, **options),
                OutputOptions(on_exist=on_exist),
                SilentReporter(),
            )
        )

    return run


def write_png(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def read_png(path: Path) -> NDArray[np.uint8]:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def test_files_come_out_in_order_and_equal(run: Run, tmp_path: Path) -> None:
    sources = [write_png(tmp_path / f"{index}.png", index) for index in range(4)]
    targets = [tmp_path / "out" / source.name for source in sources]
    records = run(*zip(sources, targets, strict=True))
    assert [record.input for record in records] == [str(source) for source in sources]
    for source, target, record in zip(sources, targets, records, strict=True):
        assert (record.status, record.exit_code, record.output) == ("ok", 0, str(target))
        assert (record.model, record.device) == ("blend.test", "cpu")
        assert record.sha256
        assert record.seconds > 0
        np.testing.assert_array_equal(read_png(source), read_png(target))


def test_a_bad_file_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    good = write_png(tmp_path / "good.png")
    missing = tmp_path / "missing.png"
    jobs = [(p, tmp_path / f"{p.stem}_out.png") for p in (bad, missing, good)]
    records = run(*jobs)
    assert [record.status for record in records] == ["failed", "failed", "ok"]
    assert [record.exit_code for record in records] == [65, 65, 0]
    for record in records[:2]:
        assert record.error is not None
        assert record.input in record.error
        assert "\n" not in record.error


def test_an_unexpected_error_is_an_internal_error_of_one_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: BlendModel, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        raise KeyError("oops")

    monkeypatch.setattr(BlendModel, "forward", fail)
    (record,) = run((write_png(tmp_path / "a.png"), tmp_path / "b.png"))
    assert (record.status, record.exit_code) == ("failed", 1)
    assert record.error is not None
    assert "internal error: KeyError: 'oops'" in record.error
    assert not (tmp_path / "b.png").exists()


def test_an_output_that_exists(run: Run, tmp_path: Path) -> None:
    source, target = write_png(tmp_path / "a.png"), tmp_path / "b.png"
    target.write_bytes(b"old")
    (failed,) = run((source, target))
    assert (failed.status, failed.exit_code) == ("failed", 73)
    (skipped,) = run((source, target), on_exist="skip")
    assert (skipped.status, skipped.exit_code) == ("skipped", 0)
    assert target.read_bytes() == b"old"
    (renamed,) = run((source, target), on_exist="rename")
    assert renamed.output == str(tmp_path / "b_1.png")
    assert target.read_bytes() == b"old"
    (written,) = run((source, target), on_exist="overwrite")
    assert written.status == "ok"
    np.testing.assert_array_equal(read_png(source), read_png(target))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_input_is_never_written_over(
    run: Run, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    first, second = write_png(tmp_path / "a.png", 1), write_png(tmp_path / "b.png", 2)
    alias = tmp_path / "alias.png"
    link(first, alias)
    before = first.read_bytes()
    records = run((first, first), (second, alias), on_exist="overwrite")
    assert [record.exit_code for record in records] == [73, 73]
    assert first.read_bytes() == before


def test_a_picture_with_infinite_values_is_a_damaged_one(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    for value in (np.inf, np.nan):
        pixels = np.full((20, 20, 3), 0.5, np.float32)
        pixels[3, 4, 1] = value
        tifffile.imwrite(source, pixels, photometric="rgb")
        (record,) = run((source, target))
        assert record.exit_code == 65
        assert record.error is not None
        assert record.error.startswith(f"{source}: some pixels are infinite")
        assert not target.exists()


def test_two_inputs_never_share_an_output(run: Run, tmp_path: Path) -> None:
    first, second = write_png(tmp_path / "a.png", 1), write_png(tmp_path / "b.png", 2)
    target = tmp_path / "c.png"
    records = run((first, target), (second, target), on_exist="overwrite")
    assert [record.exit_code for record in records] == [0, 73]
    np.testing.assert_array_equal(read_png(first), read_png(target))
    target.unlink()
    records = run((first, target), (second, target), on_exist="rename")
    assert [Path(record.output).name for record in records] == ["c.png", "c_1.png"]


def test_leftovers_of_dead_processes_are_removed(run: Run, tmp_path: Path) -> None:
    stale = tmp_path / ".b.png.999999999.part"
    stale.write_bytes(b"half")
    run((write_png(tmp_path / "a.png"), tmp_path / "b.png"))
    assert not stale.exists()


def test_a_run_that_is_cut_short_leaves_no_thread_and_no_half_file(
    folder_model: Path, tmp_path: Path
) -> None:
    jobs = [
        Job(write_png(tmp_path / f"{index}.png", index), tmp_path / "out" / f"{index}.png")
        for index in range(5)
    ]
    options = RestoreOptions(model=str(folder_model), device="cpu", noise=5.0)
    threads = threading.active_count()
    with closing(restore_files(jobs, TASK, options, OutputOptions(), SilentReporter())) as records:
        assert next(records).status == "ok"
    assert threading.active_count() == threads
    assert not list((tmp_path / "out").glob(".*"))
    for path in (tmp_path / "out").iterdir():
        np.testing.assert_array_equal(read_png(path), read_png(tmp_path / path.name))


def test_a_missing_device_ends_the_run_before_any_file() -> None:
    options = RestoreOptions(device="cuda:99")
    with pytest.raises(UnavailableError):
        next(restore_files([], TASK, options, OutputOptions(), SilentReporter()))


def test_gray_pictures_take_the_gray_model_of_the_task_where_it_is_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = BlendModel(BlendConfig())
    gray.mean = nn.Conv2d(1, 1, 3, padding=1)
    gray.spec = replace(gray.spec, in_channels=1, out_channels=1)
    models = {
        "colour": loaded(BlendModel(BlendConfig()), name="colour"),
        "gray": loaded(gray, name="gray", layout="gray"),
    }
    bundled = {"colour": models["colour"].card}
    monkeypatch.setattr("restorekit.engine.restore.load_model", models.__getitem__)
    monkeypatch.setattr("restorekit.engine.restore.bundled_cards", lambda: bundled)
    task = replace(TASK, default_model="colour", default_gray_model="gray")
    source = tmp_path / "gray.png"
    PIL.Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(source)
    used = []
    for turn in range(2):
        target = tmp_path / f"{turn}.png"
        options = RestoreOptions(device="cpu", noise=5.0)
        (record,) = restore_files(
            [Job(source, target)], task, options, OutputOptions(), SilentReporter()
        )
        used.append(record.model)
        np.testing.assert_array_equal(read_png(target), read_png(source))
        bundled["gray"] = models["gray"].card
    assert used == ["colour", "gray"]


@pytest.mark.parametrize("name", ["canon_rggb_14bit.dng", "lowlight_gbrg_12bit.dng"])
def test_a_raw_file_through_the_identity_is_its_plain_development(
    folder_model: Path, shared_data: Path, tmp_path: Path, name: str
) -> None:
    source = shared_data / "raw" / name
    plain, restored, cropped = (tmp_path / f"{i}.tif" for i in range(3))
    io.write_image(io.read_image(source), plain)
    for target, crop in ((restored, None), (cropped, (301, 100, 64, 47))):
        options = RestoreOptions(model=str(folder_model), device="cpu", crop=crop)
        (record,) = restore_files(
            [Job(source, target)], TASK, options, OutputOptions(), SilentReporter()
        )
        assert record.status == "ok", record.error
    expected = io.read_image(plain).pixels
    assert torch.equal(io.read_image(restored).pixels, expected)
    assert torch.equal(io.read_image(cropped).pixels, expected[:, 100:147, 301:365])
