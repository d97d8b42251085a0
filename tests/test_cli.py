import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from restorekit import Image
from restorekit.cli import main as entry
from restorekit.cli.progress import BarReporter, PlainReporter
from restorekit.image import Layout, Metadata, Transfer
from restorekit.io.dng import write_cfa_dng
from tests.command import Result
from tests.mosaic import scene, write_mosaic
from tests.toy import save_toy

RECORD_KEYS = {
    "version",
    "input",
    "output",
    "status",
    "exit_code",
    "error",
    "model",
    "sha256",
    "device",
    "dtype",
    "tile",
    "noise",
    "fallbacks",
    "seconds",
    "seconds_model",
    "denoised_by",
    "psf",
    "warnings",
}


LONG = 300 * "a"

Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str | Path) -> Result:
        with pytest.raises(SystemExit) as stop:
            entry.main([str(word) for word in words])
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def denoise(run: Run, model: Path) -> Run:
    def denoise(*words: str | Path) -> Result:
        return run("denoise", *words, "--model", model, "--device", "cpu")

    return denoise


def picture(path: Path, height: int = 24, width: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    iio.imwrite(path, pixels)
    return path


def test_one_file_is_written_beside_the_input(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    before = source.read_bytes()
    result = denoise(source)
    target = tmp_path / "a_denoise.png"
    assert result == (0, f"{source} -> {target}\n", "")
    assert source.read_bytes() == before
    np.testing.assert_array_equal(iio.imread(target), iio.imread(source))


def test_the_record_of_a_file(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    [record] = denoise(source, "--format", "ndjson").records
    assert record.keys() == RECORD_KEYS
    assert record["version"] == 1
    assert record["input"] == str(source)
    assert record["output"] == str(tmp_path / "a_denoise.png")
    assert (record["status"], record["exit_code"], record["error"]) == ("ok", 0, None)
    assert (record["model"], record["device"], record["dtype"]) == ("toy.test", "cpu", "float32")
    assert len(record["sha256"]) == 64
    assert record["seconds"] > 0
    assert record["seconds"] == round(record["seconds"], 3)
    assert record["noise"] is None


def test_the_record_names_the_noise_that_was_used(denoise: Run, tmp_path: Path) -> None:
    source = write_mosaic(tmp_path / "a.dng", scene(64, 80))
    [record] = denoise(source, "--format", "ndjson", "--noise", "4e-3,6e-3").records
    assert record["noise"] == [4e-3, 6e-3]
    words = ("--on-exist", "overwrite")
    assert "noise 0.004,0.006" in denoise(source, "-v", "--noise", "4e-3,6e-3", *words).out
    [record] = denoise(source, "--format", "ndjson", *words).records
    shot, read = record["noise"]
    assert shot >= 0
    assert read >= 0


@pytest.mark.parametrize(
    "words",
    [
        ("denoise", "a.png", "--dry-run", "--model", ""),
        ("burst", "a.png", "--dry-run", "--model", ""),
        ("inspect", "a.png", "--model", ""),
        ("eval", "--task", "denoise", "--data", ".", "--model", ""),
        ("train", "--from", ""),
        ("models", "info", ""),
    ],
)
def test_an_empty_model_is_not_the_default(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    result = run(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("restorekit: error: the model is an empty word")


def test_pictures_that_are_passed_over_are_said_once(denoise: Run, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("b.heic", "c.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    result = denoise(tmp_path, "--dry-run")
    [line] = result.err.splitlines()
    assert line == (
        "restorekit: warning: passed over pictures of formats that are not supported (2 HEIC); "
        "convert them to PNG or TIFF first"
    )
    assert (result.code, denoise(tmp_path, "--dry-run", "-q").err) == (0, "")
    (tmp_path / "a.png").unlink()
    result = denoise(tmp_path, "-q")
    assert result.code == 66
    assert "only pictures of formats that are not supported (2 HEIC)" in result.err


def test_a_crop_is_no_dng(denoise: Run, tmp_path: Path) -> None:
    source = write_mosaic(tmp_path / "a.dng", scene(64, 80))
    for words in (("--to", "dng"), ("--to", "cfa-dng"), ("-o", tmp_path / "b.dng")):
        result = denoise(source, "--crop", "0,0,16,16", *words)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "--crop" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.dng"]


def test_a_comparison_that_fails_leaves_the_record(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    result = denoise(source, "--compare", source / "both.png", "--format", "ndjson")
    assert result.code == 73
    assert [record["status"] for record in result.records] == ["ok"]
    assert "both.png" in result.err


def test_a_temporary_folder_is_made_for_a_pipe_alone(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restorekit.cli.restore.TemporaryDirectory", None)
    assert denoise(picture(tmp_path / "a.png")).code == 0


def test_training_without_data_says_how_to_name_it(run: Run, tmp_path: Path) -> None:
    result = run("train", "-o", tmp_path / "run")
    assert (result.code, result.err.count("\n")) == (78, 1)
    assert "--data" in result.err
    assert not (tmp_path / "run").exists()


def test_a_tree_is_mirrored_and_a_bad_file_does_not_end_the_run(
    denoise: Run, tmp_path: Path
) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "sub" / "b.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    result = denoise("-r", tmp_path / "in", "-o", tmp_path / "out", "--format", "json")
    assert result.code == 3
    states = {Path(r["input"]).name: (r["status"], r["exit_code"]) for r in json.loads(result.out)}
    assert states == {"a.png": ("ok", 0), "bad.png": ("failed", 65), "b.png": ("ok", 0)}
    written = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*.*")
    )
    assert written == ["a.png", "sub/b.png"]
    assert "bad.png" in result.err


def test_inputs_that_all_fail_alike_give_their_code(denoise: Run, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    (tmp_path / "y.jpg").write_bytes(b"")
    assert denoise(tmp_path).code == 65
    assert denoise(tmp_path / "none.png").code == 66
    assert denoise(tmp_path / "*.webp").code == 66
    (tmp_path / "empty").mkdir()
    result = denoise(tmp_path / "empty")
    assert result.code == 66
    assert result.err.count("\n") == 1


def test_a_missing_file_does_not_stop_the_others(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    result = denoise(source, tmp_path / "none.png", "--format", "ndjson")
    assert result.code == 3
    assert [r["exit_code"] for r in result.records] == [66, 0]


def test_what_happens_to_an_output_that_exists(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    target = tmp_path / "a_denoise.png"
    target.write_bytes(b"mine")
    result = denoise(source)
    assert result.code == 73
    assert str(target) in result.err
    assert denoise(source, "--on-exist", "skip").out.endswith("(skipped)\n")
    assert target.read_bytes() == b"mine"
    [record] = denoise(source, "--on-exist", "rename", "--format", "ndjson").records
    assert iio.imread(record["output"]).shape == (24, 32, 3)
    assert target.read_bytes() == b"mine"
    assert denoise(source, "--on-exist", "overwrite").code == 0
    assert iio.imread(target).shape == (24, 32, 3)


def test_an_input_is_never_written_over(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    (tmp_path / "b.png").hardlink_to(source)
    before = source.read_bytes()
    assert denoise(source, "-o", source, "--on-exist", "overwrite").code == 2
    assert denoise(source, "-o", tmp_path / "b.png", "--on-exist", "overwrite").code == 73
    assert source.read_bytes() == before


def test_quiet_and_verbose(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    assert denoise(source, "-q") == (0, "", "")
    loud = denoise(source, "-v", "--on-exist", "overwrite")
    assert "toy.test, cpu float32, tile" in loud.out
    assert denoise(source, "-q", "-v").code == 2


def test_a_dry_run_touches_nothing(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png")
    picture(tmp_path / "out" / "b.png")
    words = (source.parent, "-o", tmp_path / "out", "--dry-run", "--format", "ndjson")
    result = denoise(*words, "--on-exist", "skip")
    assert [r["status"] for r in result.records] == ["planned", "skipped"]
    assert result.code == 0
    result = denoise(*words)
    assert [r["exit_code"] for r in result.records] == [0, 73]
    result = denoise(*words, "--on-exist", "rename")
    assert [Path(r["output"]).name for r in result.records] == ["a.png", "b_1.png"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.png"]


def test_a_crop_and_its_comparison(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    both = tmp_path / "both.png"
    target = tmp_path / "crop.png"
    result = denoise(source, "-o", target, "--crop", "4,2,10,8", "--compare", both)
    assert result.code == 0
    part = iio.imread(source)[2:10, 4:14]
    np.testing.assert_array_equal(iio.imread(target), part)
    np.testing.assert_array_equal(iio.imread(both), np.concatenate([part, part], axis=1))
    assert denoise(source, "--compare", both).code == 73
    assert denoise(source, "--compare", source, "--on-exist", "overwrite").code == 2
    assert denoise(source, "--crop", "30,0,10,10", "-o", tmp_path / "c.png").code == 2


def test_a_comparison_takes_the_place_of_no_other_file(denoise: Run, tmp_path: Path) -> None:
    source, taken = picture(tmp_path / "a.png"), picture(tmp_path / "a_denoise.png")
    both = tmp_path / "a_denoise_1.png"
    assert denoise(source, "--on-exist", "rename", "--compare", both).code == 73
    assert iio.imread(both).shape == iio.imread(source).shape
    assert iio.imread(taken).shape == iio.imread(source).shape
    assert denoise(source, "--on-exist", "overwrite", "--compare", tmp_path / "c.dng").code == 2
    words = (source, "-o", tmp_path / "new.png", "--compare", both)
    assert denoise(*words, "--on-exist", "skip").code == 0
    assert iio.imread(both).shape == iio.imread(source).shape


def test_a_grey_picture_is_compared_with_its_webp(denoise: Run, tmp_path: Path) -> None:
    source = tmp_path / "grey.png"
    iio.imwrite(source, np.full((20, 30), 90, np.uint8))
    both = tmp_path / "both.png"
    assert denoise(source, "-o", tmp_path / "grey.webp", "--compare", both).code == 0
    assert iio.imread(both).shape == (20, 60, 3)


@pytest.mark.parametrize("kind", ["file", "device", "link"])
def test_an_output_folder_that_is_none(denoise: Run, tmp_path: Path, kind: str) -> None:
    source, target = picture(tmp_path / "a.png"), tmp_path / "out"
    if kind == "file":
        target.write_bytes(b"x")
    elif kind == "device":
        target = Path(os.devnull)
    else:
        target.symlink_to(tmp_path / "nowhere")
    for on_exist in ("error", "skip", "overwrite", "rename"):
        result = denoise(source, "-o", target, "--on-exist", on_exist)
        assert (result.code, result.err.count("\n")) == (73, 1)


def test_a_folder_that_cannot_be_made(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"x")
    for on_exist in ("error", "rename"):
        target = tmp_path / "file" / "b.png"
        result = denoise(source, "-o", target, "--on-exist", on_exist)
        assert (result.code, result.err.count("\n")) == (73, 1)


def test_a_dry_run_of_a_pipe_says_what_it_would_do(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))
    result = denoise("-", "--dry-run")
    assert (result.code, result.out, result.err) == (0, "", "- -> - (planned)\n")


def test_a_name_that_is_too_long_is_no_such_file(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    result = denoise(tmp_path / ("x" * 300 + ".png"), source, "--format", "ndjson")
    assert result.code == 3
    assert [record["exit_code"] for record in result.records] == [66, 0]


def test_the_picture_format_can_be_chosen(denoise: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    assert denoise(source, "--to", "jpg", "--quality", "80").code == 0
    assert (tmp_path / "a_denoise.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert denoise(source, "-o", tmp_path / "b.tif").code == 0
    assert (tmp_path / "b.tif").read_bytes()[:2] in (b"II", b"MM")
    assert denoise(source, "-o", tmp_path / "b.tif", "--to", "png").code == 2


def test_strength_mixes_the_input_with_the_result(run: Run, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    black = save_toy(tmp_path / "black", gain=0.0)
    target = tmp_path / "half.png"
    words = ("denoise", source, "-o", target, "--model", black, "--device", "cpu")
    assert run(*words, "--strength", "0.5").code == 0
    half, whole = iio.imread(target).astype(int), iio.imread(source).astype(int)
    assert np.abs(2 * half - whole).max() <= 1
    assert run(*words, "--strength", "1.5").code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--no-such-option",), 2),
        (("--format", "xml"), 2),
        (("--tile", "many"), 2),
        (("--crop", "1,2,3"), 2),
        (("--noise", "-1"), 2),
        (("--device", "toaster"), 2),
        (("--device", "cuda:99"), 69),
        (("--model", "no_such.model"), 69),
        (("--model", "~nobody_of_this_name/model"), 69),
    ],
)
def test_a_wrong_option_gives_one_line_and_its_code(
    run: Run, model: Path, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    source = picture(tmp_path / "a.png")
    chosen = () if "--model" in words else ("--model", model)
    result = run("denoise", source, *chosen, *words)
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1)
    assert result.err.startswith("restorekit: error: ")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_pipe_that_is_no_picture(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"no picture")))
    result = denoise("-")
    assert (result.code, result.out, result.err.count("\n")) == (65, "", 1)
    assert result.err.startswith("restorekit: error: standard input")
    assert denoise("-", picture(tmp_path / "a.png")).code == 2


def test_closed_streams_are_named(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    result = denoise("-", "-o", tmp_path / "b.png")
    assert result.code == 66
    assert result.err == "restorekit: error: standard input is closed\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_picture_is_restored_though_nobody_listens(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setattr(f"sys.{stream}", None)
    source, target = picture(tmp_path / "a.png"), tmp_path / "b.png"
    words = ["denoise", source, "-o", target, "--model", model, "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        entry.main(list(map(str, words)))
    if stream == "stderr":
        sys.stderr.close()
    assert stop.value.code == 0
    assert target.is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_cannot_be_said_leaves_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(SystemExit) as stop:
        entry.main(["denoise", str(tmp_path / "none.png")])
    assert stop.value.code == 66
    with suppress(OSError):
        stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["denoise", "--help"], ["--version"]])
def test_a_full_disk_ends_the_help_like_any_command(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "restorekit", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert result.returncode == 73
    [line] = result.stderr.splitlines()
    assert "No space left on device" in line
    assert "internal" not in line


def test_no_place_for_a_pipe_names_the_remedy(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    result = denoise("-", "-o", tmp_path / "a.png")
    assert (result.code, result.out) == (73, "")
    assert result.err.endswith("; set TMPDIR to a folder that has room\n")


def test_a_picture_that_is_not_there_cannot_be_inspected(run: Run, tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "none.png", "--model", "kit_xs.gaussian")
    assert (result.code, result.err.count("\n")) == (66, 1)


def test_a_picture_is_not_poured_onto_a_terminal(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture(tmp_path / "a.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert denoise(source, "-o", "-").code == 2


def test_offline_reaches_the_hub(
    denoise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert denoise(picture(tmp_path / "a.png"), "--offline").code == 0
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_an_unforeseen_error_shows_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object, **settings: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("restorekit.cli.app.app", broken)
    result = run("info")
    assert result.code == 1
    assert result.err.startswith("restorekit: internal error: ValueError: odd; please report")
    assert "Traceback" not in result.err
    monkeypatch.setenv("RESTOREKIT_DEBUG", "1")
    assert "Traceback" in run("info").err


@pytest.mark.parametrize("words", [("info", LONG), ("denoise", "a.png", "-o", f"{LONG}/")])
def test_a_name_that_no_file_system_takes_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    result = run(*words)
    assert result.code != 0
    assert result.err.count("\n") == 1
    assert "internal" not in result.err
    assert LONG in result.err


def test_a_signal_that_a_library_turns_into_an_error_stays_a_signal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **settings: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise TypeError("odd") from None

    monkeypatch.setattr("restorekit.cli.app.app", broken)
    assert run("info") == (143, "", "restorekit: interrupted\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")


@pytest.mark.usefixtures("terminal")
def test_examples_lead_the_help(run: Run) -> None:
    for words, example in (
        ((), "restorekit denoise photo.jpg"),
        (("denoise",), "restorekit denoise photo.jpg"),
        (("info",), "restorekit info kbnet_s"),
    ):
        result = run(*words, "-h")
        assert result.code == 0
        assert result.out == run(*words, "--help").out
        assert "\x1b" not in result.out
        examples, options = result.out.index("Examples"), result.out.index("Options")
        assert examples < result.out.index(example) < options


@pytest.mark.usefixtures("terminal")
def test_the_help_of_noise_names_both_units(run: Run) -> None:
    text = " ".join(run("denoise", "-h").out.replace("│", " ").split())
    assert "SIGMA|SHOT,READ" in text
    assert "steps of 0-255" in text


def test_version_and_bare_call(run: Run) -> None:
    from restorekit import __version__

    assert run("--version") == (0, f"restorekit {__version__}\n", "")
    assert run().code == 2


def test_info_of_the_machine(run: Run) -> None:
    facts = json.loads(run("info", "--format", "json").out)
    assert facts["version"] == 1
    assert facts["devices"]["cpu"] in ("float32", "bfloat16")
    assert facts["threads"] >= 1
    assert facts["cpu_kernels"].startswith(("compiled", "plain"))
    assert run("info").out.startswith("restorekit ")


def test_info_of_a_model(run: Run, model: Path) -> None:
    facts = json.loads(run("info", model, "--format", "json").out)
    assert facts["model"] == "toy.test"
    assert facts["parameters"] == 1
    assert run("info", "nothing.jpg").code == 66
    assert run("info", "no_such.model").code == 69
    assert run("info", "").code == 2


def test_info_of_an_architecture_agrees_with_the_paper(run: Run) -> None:
    facts = json.loads(run("info", "kbnet_s", "--format", "json").out)
    assert facts["parameters"] == pytest.approx(141.97e6, rel=1e-4)
    assert facts["macs_layers"] == pytest.approx(68.7e9, rel=5e-3)
    assert facts["macs"] > facts["macs_layers"]


def test_info_of_a_picture(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = np.clip(rng.normal(128, 10, (256, 320, 3)), 0, 255).astype(np.uint8)
    iio.imwrite(tmp_path / "a.png", grey)
    facts = json.loads(run("info", tmp_path / "a.png", "--format", "json").out)
    assert (facts["width"], facts["height"], facts["bit_depth"]) == (320, 256, 8)
    assert (facts["layout"], facts["cfa"]) == ("rgb", None)
    assert facts["noise_estimated"]["sigma"] == pytest.approx(10, rel=0.1)


def test_info_measures_noise_beside_hot_pixels(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    planes = 0.2 + 0.01 * torch.randn(4, 200, 200, generator=generator)
    found = []
    for name, hot in (("sound", 0), ("faulty", 300)):
        planes.view(-1)[torch.randperm(planes.numel(), generator=generator)[:hot]] = 0.9
        metadata = Metadata(cfa="RGGB")
        mosaic = Image(planes, Transfer.LINEAR, Layout.BAYER, metadata)
        write_cfa_dng(mosaic, tmp_path / f"{name}.dng")
        facts = json.loads(run("info", tmp_path / f"{name}.dng", "--format", "json").out)
        found.append(facts["noise_estimated"]["read"])
    assert found == [pytest.approx(0.01, rel=0.05)] * 2


def test_info_of_a_raw_file(run: Run, shared_data: Path) -> None:
    path = shared_data / "raw" / "canon_rggb_14bit.dng"
    facts = json.loads(run("info", path, "--format", "json").out)
    assert (facts["width"], facts["height"]) == (1734, 1156)
    assert (facts["layout"], facts["cfa"]) == ("bayer", "RGGB")
    assert set(facts["black_level"]) == {2056}


def test_plain_progress_is_notes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.start(3, "files")
    reporter.advance()
    reporter.note("falling back\nto the CPU")
    reporter.finish()
    assert capsys.readouterr() == ("", "restorekit: falling back\\nto the CPU\n")


def test_bars_are_nested_and_leave_nothing() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with Progress(console=console, transient=True) as progress:
        reporter = BarReporter(progress)
        reporter.start(2, "files")
        reporter.start(4, "tiles")
        reporter.advance(3)
        assert [(t.description, t.completed) for t in progress.tasks] == [
            ("files", 0),
            ("tiles", 3),
        ]
        reporter.finish()
        reporter.advance()
        assert [(t.description, t.completed) for t in progress.tasks] == [("files", 1)]
        reporter.finish()
        assert progress.tasks == []
        reporter.finish()
