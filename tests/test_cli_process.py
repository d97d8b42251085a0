import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from restorekit.io.atomic import part_name
from tests.toy import save_toy

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "tests.toy"]
FILES = 20
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures and a model that takes its time."""
    folder = tmp_path_factory.mktemp("run")
    save_toy(folder / "model", seconds=0.05)
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        iio.imwrite(folder / "in" / f"{number:02}.png", pixels)
    return folder


def words(folder: Path, output: Path) -> list[str]:
    source, model = str(folder / "in"), str(folder / "model")
    return ["denoise", source, "-o", str(output), "--model", model, "--device", "cpu"]


@contextmanager
def started(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_outputs(process: "subprocess.Popen[str]", output: Path, number: int) -> None:
    limit = time.monotonic() + 60
    while len(list(output.glob("*.png"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "the run does not come on"
        time.sleep(0.01)


def assert_whole(folder: Path, output: Path) -> int:
    """Assert that every output is its input, and return how many there are."""
    written = sorted(output.glob("*.png"))
    for path in written:
        np.testing.assert_array_equal(iio.imread(path), iio.imread(folder / "in" / path.name))
    return len(written)


@pytest.mark.parametrize(("name", "code"), SIGNALS.items())
def test_a_signal_ends_the_run_cleanly(folder: Path, tmp_path: Path, name: str, code: int) -> None:
    output = tmp_path / "out"
    with started([*COMMAND, *words(folder, output), "--format", "ndjson"]) as process:
        wait_for_outputs(process, output, 2)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == "restorekit: interrupted\n"
    done = assert_whole(folder, output)
    assert 2 <= done < FILES
    recorded = [json.loads(line)["output"] for line in out.splitlines()]
    assert recorded == sorted(str(path) for path in output.iterdir())


@pytest.mark.parametrize(("name", "code"), SIGNALS.items())
def test_a_signal_while_the_commands_load_is_clean(name: str, code: int) -> None:
    program = (
        "import os, signal, sys\n"
        "def tell(event, values):\n"
        f"    if event == 'import' and values[0] == 'typer': os.kill(os.getpid(), signal.{name})\n"
        "sys.addaudithook(tell)\n"
        "from restorekit.cli.main import main\n"
        "main(['--help'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr == "restorekit: interrupted\n"


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
def test_an_interrupt_while_the_model_loads_is_clean(
    folder: Path, tmp_path: Path, delay: float
) -> None:
    code = (
        "import sys, restorekit.cli.main as entry\n"
        "def tell(event, values):\n"
        "    if event == 'import' and values[0] == 'torch':\n"
        "        print('loading', flush=True)\n"
        "sys.addaudithook(tell)\n"
        "entry.main()\n"
    )
    with started([sys.executable, "-c", code, *words(folder, tmp_path / "out")]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "restorekit: interrupted\n"


def test_a_run_killed_at_any_moment_is_carried_on(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    again = [*COMMAND, *words(folder, output), "--on-exist", "skip"]
    chance = random.Random(0)
    for number in (3, 9):
        with started(again) as process:
            wait_for_outputs(process, output, number)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        assert assert_whole(folder, output) < FILES
    (output / part_name("00.png", process.pid)).write_bytes(b"half")
    result = subprocess.run(
        [*again, "--format", "ndjson"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    states = [json.loads(line)["status"] for line in result.stdout.splitlines()]
    assert len(states) == FILES
    assert states.count("skipped") >= 9
    assert assert_whole(folder, output) == FILES
    assert len(list(output.iterdir())) == FILES


def test_a_pipe_carries_the_picture_and_stderr_the_record(folder: Path) -> None:
    picture = folder / "in" / "00.png"
    arguments = ["denoise", "-", "--model", str(folder / "model"), "--device", "cpu"]
    with picture.open("rb") as stream:
        result = subprocess.run(
            [*COMMAND, *arguments, "--format", "ndjson"],
            cwd=ROOT,
            stdin=stream,
            capture_output=True,
            timeout=60,
        )
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(iio.imread(result.stdout), iio.imread(picture))
    record = json.loads(result.stderr)
    assert (record["input"], record["output"], record["status"]) == ("-", "-", "ok")


def test_a_reader_that_leaves_ends_the_run_quietly(folder: Path, tmp_path: Path) -> None:
    with started([*COMMAND, *words(folder, tmp_path / "out"), "--format", "ndjson"]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_reader_that_leaves_ends_the_help_like_any_command(word: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "restorekit", word],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from restorekit.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & sys.modules.keys()\n"
    )
    fastest = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
        fastest = min(fastest, time.perf_counter() - started)
        assert result.returncode == 0, result.stderr
        assert b"denoise" in result.stdout
    assert fastest < 2, "the contract is 0.5 s on a quiet machine"


def test_the_module_runs_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "restorekit", "denoise", "--crop"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("restorekit: error: ")
