import os
import threading
import time
from collections.abc import Callable, Iterator
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
from restorekit.io.atomic import part_name
from restorekit.models import registry
from restorekit.tasks import TASKS
from tests.blend_model import CARD, BlendConfig, BlendModel, loaded
from tests.mosaic import dng_tags, scene

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


def test_a_format_that_cannot_hold_the_picture_is_refused_before_the_network_runs(
    folder_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(BlendModel, "forward")
    job = Job(write_png(tmp_path / "a.png"), tmp_path / "a.dng")
    options = RestoreOptions(model=str(folder_model), device="cpu")
    for output in (OutputOptions(format="cfa-dng"), OutputOptions()):
        (record,) = restore_files([job], TASK, options, output, SilentReporter())
        assert record.exit_code == 73
        assert record.error is not None
        assert "only a RAW picture" in record.error


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
    target.unlink()
    target.symlink_to(tmp_path / "gone.png")
    assert run((source, target))[0].exit_code == 73
    assert run((source, target), on_exist="rename")[0].output == str(tmp_path / "b_2.png")


def test_an_output_that_another_process_writes_meanwhile(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write_png(tmp_path / "a.png"), tmp_path / "b.png"

    def meanwhile(self: BlendModel, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        target.write_bytes(b"theirs")
        return degraded

    monkeypatch.setattr(BlendModel, "forward", meanwhile)
    outcomes = []
    for on_exist in ("error", "skip", "rename"):
        target.unlink(missing_ok=True)
        (record,) = run((source, target), on_exist=on_exist)
        outcomes.append((record.status, record.exit_code, Path(record.output).name))
        assert target.read_bytes() == b"theirs"
    expected = [("failed", 73, "b.png"), ("skipped", 0, "b.png"), ("ok", 0, "b_1.png")]
    assert outcomes == expected
    np.testing.assert_array_equal(read_png(source), read_png(tmp_path / "b_1.png"))


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
    stale = tmp_path / part_name("b.png", 999_999_999)
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


def test_a_record_comes_before_the_next_picture_is_restored_where_it_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Job(write_png(tmp_path / f"{n}.png"), tmp_path / f"{n}_.png") for n in "ab")
    read, forward = io.read_image, BlendModel.forward
    events = []

    def read_late(path: Path) -> Any:
        limit = time.monotonic() + 10
        while path == second.source and not first.target.exists() and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.2)
        return read(path)

    def restore(self: BlendModel, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        events.append("restored")
        return forward(self, degraded, noise_std)

    monkeypatch.setattr(io, "read_image", read_late)
    monkeypatch.setattr(BlendModel, "forward", restore)
    options = RestoreOptions(model=str(tmp_path / "model"), device="cpu", noise=5.0)
    for _ in restore_files([first, second], TASK, options, OutputOptions(), SilentReporter()):
        events.append("recorded")
    assert events == ["restored", "recorded"] * 2


def test_every_file_that_was_written_has_its_record_when_a_run_is_interrupted(
    folder_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        Job(write_png(tmp_path / f"{index}.png", index), tmp_path / "out" / f"{index}.png")
        for index in range(5)
    ]
    forward, pictures = BlendModel.forward, []

    def stop(self: BlendModel, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        pictures.append(degraded)
        if len(pictures) == 3:
            raise KeyboardInterrupt
        return forward(self, degraded, noise_std)

    monkeypatch.setattr(BlendModel, "forward", stop)
    options = RestoreOptions(model=str(folder_model), device="cpu", noise=5.0)
    outputs = []

    def keep(records: Iterator[FileRecord]) -> None:
        for record in records:
            outputs.append(record.output)

    with pytest.raises(KeyboardInterrupt):
        keep(restore_files(jobs, TASK, options, OutputOptions(), SilentReporter()))
    assert outputs == [str(path) for path in sorted((tmp_path / "out").iterdir())]
    assert len(outputs) == 2


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_notes_name_the_file_when_there_are_many(
    folder_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = BlendModel.forward

    def hungry(self: BlendModel, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        if degraded.shape[-1] > 32:
            raise MemoryError
        return forward(self, degraded, noise_std)

    monkeypatch.setattr(BlendModel, "forward", hungry)
    options = RestoreOptions(model=str(folder_model), device="cpu", noise=5.0)
    jobs = [Job(write_png(tmp_path / f"{n}.png"), tmp_path / f"{n}_.png") for n in "ab"]
    for chosen, names in ((jobs, [f"{job.source}: " for job in jobs]), (jobs[:1], [""])):
        reporter = Notes()
        list(restore_files(chosen, TASK, options, OutputOptions(on_exist="overwrite"), reporter))
        assert reporter.notes == [
            f"{name}falling back to tile 32 after memory ran out" for name in names
        ]


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
    monkeypatch.setattr("restorekit.engine.domain.bundled_cards", lambda: bundled)
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


@pytest.mark.parametrize(
    ("size", "tags", "crop"),
    [
        ((100, 130), [], (90, 60, 40, 40)),
        ((101, 131), [], (90, 60, 41, 41)),
        ((101, 131), [(274, 3, 1, 3, True)], (10, 60, 41, 41)),
        ((101, 131), [(274, 3, 1, 6, True)], (60, 90, 41, 41)),
        ((100, 130), [(50718, 5, 2, (2, 1, 1, 1), True)], (210, 50, 30, 30)),
        ((100, 130), [(50718, 5, 2, (1, 1, 2, 1), True)], (90, 150, 30, 50)),
    ],
)
def test_a_raw_crop_is_that_of_the_restored_picture(
    folder_model: Path,
    tmp_path: Path,
    size: tuple[int, int],
    tags: list[Any],
    crop: tuple[int, int, int, int],
) -> None:
    model = BlendModel(BlendConfig(gain=-0.5))
    nn.init.dirac_(model.mean.weight, groups=3)
    save_model(model, replace(CARD, config={"gain": -0.5}), folder_model)
    source, whole, part = (tmp_path / name for name in ("a.dng", "whole.tif", "part.tif"))
    tifffile.imwrite(
        source, scene(*size), photometric=32803, metadata=None, extratags=[*dng_tags(), *tags]
    )
    for target, chosen in ((whole, None), (part, crop)):
        options = RestoreOptions(model=str(folder_model), device="cpu", tile=64, crop=chosen)
        (record,) = restore_files(
            [Job(source, target)], TASK, options, OutputOptions(), SilentReporter()
        )
        assert record.status == "ok", record.error
    x, y, width, height = crop
    expected = io.read_image(whole).pixels
    plain = io.raw.develop(io.read_image(source)).pixels
    assert (plain - expected).abs().mean() > 0.05
    assert expected.shape == plain.shape
    expected = expected[:, y : y + height, x : x + width]
    torch.testing.assert_close(io.read_image(part).pixels, expected, rtol=0, atol=1e-3)
