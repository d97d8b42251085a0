import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rawpy
import torch

from restorekit.cli import main as entry
from restorekit.image import Image, Layout, Transfer
from restorekit.io import read_image, write_image
from restorekit.io.dng import read_dng_tags, write_cfa_dng
from tests.burst_model import save_mean_of_burst
from tests.command import Result
from tests.shaken import GAINS, hand_motion, noisy, raw, seen, texture
from tests.test_frames import write_shot

FRAME_KEYS = {
    "input",
    "status",
    "reason",
    "shift",
    "rotation",
    "inliers",
    "weight",
    "stops",
    "noise",
}


Burst = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mean_of_burst(tmp_path_factory.mktemp("models") / "mean")


@pytest.fixture
def burst(capsys: pytest.CaptureFixture[str], model: Path) -> Burst:
    def burst(*words: str | Path) -> Result:
        command = ["burst", *words, "--model", model, "--device", "cpu"]
        with pytest.raises(SystemExit) as stop:
            entry.main([str(word) for word in command])
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capsys.readouterr())

    return burst


def write_frames(folder: Path, count: int, seed: int = 1, **metadata: object) -> list[Path]:
    """Write what shaking hands see of a scene of 192 x 160 pixels."""
    scene = texture(96, 112, seed=seed, channels=4)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        frame = seen(scene, hand_motion(80, 96, complex(number, -number), 0), margin=8)
        files.append(folder / f"{number}.dng")
        planes = noisy(frame, GAINS[0], number)
        write_cfa_dng(raw(planes, GAINS[0], iso=100.0, exposure_time=0.01, **metadata), files[-1])
    return files


def test_files_become_one_picture_beside_the_first(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path, 3)
    result = burst(*files)
    target = tmp_path / "0_burst.tif"
    assert result == (0, f"{files[0]} and 2 more -> {target}\n", "")
    picture = read_image(target)
    assert picture.pixels.shape == (3, 160, 192)
    assert picture.metadata.bit_depth == 16
    assert burst(*files).code == 73
    assert burst(*files, "--on-exist", "skip").out.endswith("(skipped)\n")
    [again] = burst(tmp_path, "--on-exist", "rename", "--format", "ndjson").records
    assert again["output"] == str(tmp_path / "0_burst_1.tif")
    assert len(again["frames"]) == 3


def test_the_record_of_a_burst(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path, 4)
    result = burst(*files, "--format", "json", "-o", tmp_path / "out" / "clean.png")
    [record] = json.loads(result.out)
    assert record["version"] == 1
    assert record["input"] == str(files[0])
    assert record["output"] == str(tmp_path / "out" / "clean.png")
    assert (record["status"], record["exit_code"], record["model"]) == ("ok", 0, "mean.burst")
    assert record["noise"] == pytest.approx([GAINS[0].shot, GAINS[0].read])
    assert [frame["input"] for frame in record["frames"]] == [str(file) for file in files]
    assert all(frame.keys() == FRAME_KEYS for frame in record["frames"])
    assert sorted(frame["status"] for frame in record["frames"]) == 3 * ["merged"] + ["reference"]


def test_dng_out_is_a_raw_file_with_less_noise(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path / "in", 4, make="Maker", model="One")
    for to, channels in (("dng", 3), ("cfa-dng", 1)):
        target = tmp_path / f"{to}.dng"
        assert burst(*files, "-o", target, "--to", to).code == 0
        tags = read_dng_tags(target)
        assert tags.is_linear == (channels == 3)
        with rawpy.imread(str(target)) as opened:
            assert opened.raw_image.shape[:2] == (160, 192)
    noise = read_dng_tags(tmp_path / "cfa-dng.dng").noise
    assert noise is not None
    assert noise.shot < GAINS[0].shot / 2
    assert read_image(tmp_path / "cfa-dng.dng").metadata.model == "One"


def test_rgb_frames_keep_their_format(burst: Burst, tmp_path: Path) -> None:
    scene = texture(176, 208, seed=3, channels=3)
    for number in range(3):
        frame = seen(scene, hand_motion(160, 192, complex(number, number), 0), margin=8)
        image = Image(noisy(frame, GAINS[1], number), Transfer.LINEAR, Layout.RGB).to_srgb()
        write_image(image, tmp_path / f"{number}.jpg", quality=98)
    result = burst(tmp_path, "--noise", "8", "-v")
    assert (result.code, result.err) == (0, "")
    assert "0_burst.jpg" in result.out
    files = sorted(tmp_path.glob("?.jpg"))
    assert burst(*files, "-o", tmp_path / "a.png", "--noise", "1e-3,1e-3").code == 2
    assert burst(*files, "--to", "dng").code == 73


def test_one_frame_is_refused(burst: Burst, tmp_path: Path) -> None:
    [file] = write_frames(tmp_path, 1)
    result = burst(file)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "0.dng: a burst has at least two frames" in result.err


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ("size", "64 x 64 pixels"),
        ("cfa", "GBRG"),
        ("camera", "from Two"),
        ("exposure", "--bracket"),
        ("kind", "RGB"),
    ],
)
def test_frames_that_do_not_fit_are_refused_and_named(
    burst: Burst, tmp_path: Path, odd: str, words: str
) -> None:
    files = write_frames(tmp_path, 2)
    planes = noisy(texture(80, 96, seed=1, channels=4), GAINS[0], 9)
    stranger = raw(planes, GAINS[0], iso=100.0, exposure_time=0.01)
    name = tmp_path / "odd.dng"
    if odd == "kind":
        name = tmp_path / "odd.png"
        write_image(Image(planes[:3], Transfer.LINEAR, Layout.RGB), name)
    elif odd == "size":
        write_cfa_dng(stranger.with_pixels(planes[:, :32, :32]), name)
    else:
        changed = {
            "cfa": {"cfa": "GBRG"},
            "camera": {"model": "Two"},
            "exposure": {"exposure_time": 0.05},
        }[odd]
        write_cfa_dng(
            raw(planes, GAINS[0], **{"iso": 100.0, "exposure_time": 0.01} | changed), name
        )
    result = burst(*files, name, "--format", "ndjson")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert name.name in result.err
    assert words in result.err
    assert result.records[0]["status"] == "failed"
    assert {frame["status"] for frame in result.records[0]["frames"]} == {"unused"}
    assert not list(tmp_path.glob("*burst*"))
    if odd == "exposure":
        assert burst(*files, name, "--bracket").code == 0


def test_a_frame_that_is_cut_off_is_left_out_and_named(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path, 3)
    files[1].write_bytes(files[1].read_bytes()[:9000])
    result = burst(*files, "--format", "ndjson")
    [record] = result.records
    assert result.code == 3
    assert (record["status"], record["exit_code"]) == ("ok", 3)
    assert [frame["status"] == "failed" for frame in record["frames"]] == [False, True, False]
    assert str(files[1]) in record["frames"][1]["reason"]
    assert str(files[1]) in result.err
    assert (tmp_path / "0_burst.tif").exists()
    files[2].write_bytes(b"")
    result = burst(*files, "--on-exist", "overwrite")
    assert (result.code, result.err.count("\n")) == (65, 1)
    assert str(files[1]) in result.err


def test_an_unrelated_frame_is_named_in_a_warning(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path, 3)
    [stranger] = write_frames(tmp_path / "other", 1, seed=2)
    result = burst(*files, stranger, "--format", "ndjson")
    assert result.code == 0
    assert "warning" in result.err
    assert f"{stranger} is left out" in result.err
    assert result.records[0]["frames"][3]["status"] == "rejected"


def test_copies_are_named_in_warnings(burst: Burst, tmp_path: Path) -> None:
    [file] = write_frames(tmp_path, 1)
    copy = tmp_path / "copy.dng"
    copy.write_bytes(file.read_bytes())
    result = burst(file, copy, "--format", "ndjson")
    assert result.code == 0
    assert f"{copy} is left out: a copy of {file}" in result.err
    assert "the result is that of a single frame" in result.err
    assert [frame["status"] for frame in result.records[0]["frames"]] == ["reference", "rejected"]


def test_folders_are_bursts(burst: Burst, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        write_frames(tmp_path / "in" / name, 2, seed=number)
    write_frames(tmp_path / "in" / "lonely", 1)
    write_frames(tmp_path / "in" / "bad", 2)[1].write_bytes(b"")
    words = (tmp_path / "in", "-r", "--group-by", "folder", "-o", tmp_path / "out")
    planned = burst(*words, "--dry-run", "--format", "ndjson").records
    assert [record["status"] for record in planned] == [*3 * ["planned"], "skipped"]
    assert not (tmp_path / "out").exists()
    result = burst(*words, "--format", "ndjson")
    states = {Path(r["input"]).parent.name: (r["status"], r["exit_code"]) for r in result.records}
    assert states == {
        "a": ("ok", 0),
        "b": ("ok", 0),
        "bad": ("failed", 65),
        "lonely": ("skipped", 0),
    }
    assert result.code == 3
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/*/*"))
    assert written == ["a/0.tif", "b/0.tif"]


def test_time_divides_bursts(burst: Burst, tmp_path: Path) -> None:
    for number, clock in enumerate(("10:00:00", "10:00:01", "10:01:00", "10:01:01")):
        write_shot(tmp_path / f"{number}.dng", clock)
    records = burst(tmp_path, "--group-by", "time", "--dry-run", "--format", "ndjson").records
    assert [Path(r["output"]).name for r in records] == ["0_burst.tif", "2_burst.tif"]
    assert [len(record["frames"]) for record in records] == [2, 2]
    result = burst(tmp_path, "--group-by", "time", "-o", tmp_path / "one.tif", "--dry-run")
    assert result.code == 2


def test_words_that_name_nothing(burst: Burst, tmp_path: Path) -> None:
    [file] = write_frames(tmp_path, 1)
    assert burst(file, tmp_path / "none.dng").code == 66
    (tmp_path / "empty").mkdir()
    assert burst(tmp_path / "empty").code == 66
    assert burst("-").code == 2
    assert burst(file, "-o", "-").code == 2
    assert burst(file, "-q", "-v").code == 2


def test_a_model_for_single_pictures_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = write_frames(tmp_path, 2)
    words = [*map(str, files), "--model", "kbnet_xs.gaussian", "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        entry.main(["burst", *words])
    assert stop.value.code == 2
    assert "single pictures" in capsys.readouterr().err


def test_the_same_burst_gives_the_same_picture(burst: Burst, tmp_path: Path) -> None:
    files = write_frames(tmp_path, 3)
    for name in ("a.tif", "b.tif"):
        assert burst(*files, "-o", tmp_path / name).code == 0
    first, second = (read_image(tmp_path / name).pixels for name in ("a.tif", "b.tif"))
    assert torch.equal(first, second)
