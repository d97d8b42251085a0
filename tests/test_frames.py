import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restorekit.engine.frames import (
    Frame,
    by_sharpness,
    check_frames,
    group_files,
    guide,
    inspect_frame,
    stabilised,
    stops_between,
)
from restorekit.errors import DecodeError, UsageError
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.io.dng import write_cfa_dng
from restorekit.io.exif import EXIF_IFD, EXPOSURE_TIME, TAKEN, TAKEN_FRACTION, new_exif
from restorekit.io.ifd import Entry
from tests.shaken import GAINS, in_memory, noisy, raw, seeded, texture

SHOT = {"iso": 100.0, "exposure_time": 0.01, "f_number": 2.0, "make": "Maker", "model": "One"}


def frame(name: str, size: tuple[int, int] = (64, 48), **metadata: object) -> Frame:
    noise = NoiseProfile(1e-3, 1e-3)
    stated = replace(Metadata(cfa="RGGB", **SHOT), **metadata)
    traits = (Layout.BAYER, size, stated, noise, False, 1.0, 0.2)
    return Frame(name, lambda: None, *traits)  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", GAINS)
def test_stabilised_noise_has_deviation_1_and_black_0(noise: NoiseProfile) -> None:
    for level in (0.1, 0.5):
        planes = noisy(torch.full((4, 100, 100), level), noise, 0)
        assert float(stabilised(planes, noise).std()) == pytest.approx(1, abs=0.06)
        assert float(guide(planes, noise).std()) == pytest.approx(1, abs=0.06)
        assert float(guide(planes[:3], noise).std()) == pytest.approx(1, abs=0.06)
    assert float(stabilised(torch.zeros(()), noise)) == 0


@pytest.mark.parametrize("noise", GAINS)
def test_the_sharpest_frame_comes_first(noise: NoiseProfile) -> None:
    scene = texture(160, 200, seed=1, channels=4)
    blur = torch.ones(4, 1, 3, 3) / 9
    images = []
    for number in range(5):
        shaken = scene if number == 3 else F.conv2d(scene, blur, padding=1, groups=4)
        images.append(raw(noisy(shaken, noise, number), noise))
    assert by_sharpness(in_memory(images))[0] == 3


def test_a_frame_in_other_light_is_no_reference() -> None:
    noise = GAINS[0]
    scene = texture(160, 200, seed=1, channels=4) / 4
    images = [raw(noisy((4 if n == 2 else 1) * scene, noise, n), noise) for n in range(4)]
    order = by_sharpness(in_memory(images))
    assert order[-1] == 2
    exposed = replace(images[2].metadata, **SHOT)
    images = [
        replace(i, metadata=replace(exposed, exposure_time=0.04 if n == 2 else 0.01))
        for n, i in enumerate(images)
    ]
    assert by_sharpness(in_memory(images))[0] == 2


def test_a_frame_states_its_noise_and_size() -> None:
    planes = noisy(texture(100, 120, seed=2, channels=4), GAINS[2], 0)
    stated = inspect_frame("a", lambda: raw(planes, GAINS[2]))
    assert stated.noise == GAINS[2]
    assert stated.size == (240, 200)
    measured = inspect_frame("a", lambda: raw(planes, None)).noise
    assert measured.shot == pytest.approx(GAINS[2].shot, rel=0.5)
    assert measured.read == pytest.approx(GAINS[2].read, rel=0.3)
    given = inspect_frame("a", lambda: raw(planes, GAINS[2]), NoiseProfile(0.5, 0.5)).noise
    assert given == NoiseProfile(0.5, 0.5)


def test_a_frame_has_no_hot_pixels() -> None:
    planes = noisy(texture(100, 120, seed=2, channels=4) * 0.2, GAINS[0], 0)
    hot = planes.clone()
    hot[0, 10::20, 10::20] = 0.9
    frame = inspect_frame("a", lambda: raw(hot, GAINS[0]))
    assert float((frame.load().pixels - planes).abs().max()) < 0.2
    assert frame.noise == GAINS[0]


@pytest.mark.parametrize("side", [1, 3, 15])
def test_a_frame_that_is_too_small_to_be_aligned_is_refused(side: int) -> None:
    small = Image(torch.rand(3, side, 40), Transfer.SRGB, Layout.RGB)
    with pytest.raises(UsageError, match="small: too small for a burst"):
        inspect_frame("small", lambda: small)


@pytest.mark.parametrize(
    "wide",
    [
        Image(torch.rand(1, 16, 40000), Transfer.SRGB, Layout.GRAY),
        raw(torch.rand(4, 16, 20000), GAINS[0]),
    ],
)
def test_a_frame_that_is_too_wide_to_be_warped_is_refused(wide: Image) -> None:
    with pytest.raises(UsageError, match="wide: too large for a burst"):
        inspect_frame("wide", lambda: wide)


def test_the_noise_of_rgb_frames_is_linear() -> None:
    linear = texture(200, 240, seed=3, channels=3)
    image = Image(noisy(linear, GAINS[1], 0), Transfer.LINEAR, Layout.RGB).to_srgb()
    measured = inspect_frame("a", lambda: image).noise
    variance = GAINS[1].shot * 0.3 + GAINS[1].read ** 2
    assert measured.shot * 0.3 + measured.read**2 == pytest.approx(variance, rel=0.3)
    encoded = Image(torch.full((3, 200, 240), 0.6), Transfer.SRGB, Layout.RGB)
    encoded = encoded.with_pixels(
        encoded.pixels + 0.05 * torch.randn(3, 200, 240, generator=seeded(0))
    )
    given = inspect_frame("a", lambda: encoded, 0.05 * 255).noise
    level, spread = encoded.to_linear().pixels.mean(), encoded.to_linear().pixels.var()
    assert given.shot * float(level) + given.read**2 == pytest.approx(float(spread), rel=0.15)
    with pytest.raises(UsageError, match="one number"):
        inspect_frame("a", lambda: encoded, NoiseProfile(1e-3, 1e-3))
    with pytest.raises(UsageError, match="SHOT,READ"):
        inspect_frame("a", lambda: raw(linear[[0, 1, 1, 2]], GAINS[0]), 20.0)


def test_frames_with_holes_are_refused() -> None:
    planes = texture(32, 32, seed=4, channels=4)
    planes[0, 3, 3] = torch.nan
    with pytest.raises(DecodeError, match=r"hole\.dng"):
        inspect_frame("hole.dng", lambda: raw(planes, GAINS[0]))


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (frame("odd.dng", (64, 50)), ("64 x 50 pixels", "64 x 48 pixels")),
        (frame("odd.dng", cfa="GBRG"), ("GBRG", "RGGB")),
        (frame("odd.dng", model="Two"), ("Maker Two", "Maker One")),
        (frame("odd.dng", make=None, model=None), ("unknown camera", "Maker One")),
        (replace(frame("odd.dng"), layout=Layout.RGB), ("RGB", "RAW of a RGGB sensor")),
        (frame("odd.dng", exposure_time=0.02), ("1.0 stops", "--bracket")),
        (frame("odd.dng", f_number=2.8), ("stops",)),
    ],
)
def test_what_is_no_frame_of_the_burst_is_named(odd: Frame, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        check_frames([frame("a.dng"), frame("b.dng"), odd])
    assert "odd.dng" in str(refused.value)
    assert all(word in str(refused.value) for word in words)
    assert refused.value.exit_code == 2
    check_frames([frame("a.dng"), frame("b.dng")])


def test_one_frame_is_no_burst() -> None:
    with pytest.raises(UsageError, match=r"a\.dng: a burst has at least two frames"):
        check_frames([frame("a.dng")])


def test_brackets_are_taken_when_asked_for() -> None:
    frames = [frame("a.dng"), frame("b.dng", exposure_time=0.04)]
    check_frames(frames, bracket=True)
    assert stops_between(frames[0].metadata, frames[1].metadata) == pytest.approx(2)
    assert stops_between(frames[0].metadata, replace(frames[1].metadata, iso=None)) == 0
    check_frames([frame("a.dng"), frame("b.dng", exposure_time=0.012)])
    check_frames([frame("a.dng"), frame("b.dng", iso=None)])


def write_shot(
    path: Path, clock: str, fraction: str = "0", exposure_time: float = 0.01, model: str = "One"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = Fraction(str(exposure_time)).as_integer_ratio()
    stated = {
        EXPOSURE_TIME: Entry(5, 1, struct.pack("<II", *seconds)),
        TAKEN: Entry(2, 20, b"2026:01:31 " + clock.encode() + b"\0"),
        TAKEN_FRACTION: Entry(2, len(fraction) + 1, fraction.encode() + b"\0"),
    }
    planes = noisy(texture(16, 16, seed=0, channels=4), GAINS[0], 0)
    image = raw(planes, GAINS[0], exif=new_exif({}, {EXIF_IFD: stated}), model=model)
    write_cfa_dng(image, path)
    return path


def test_pauses_cameras_and_folders_divide_shots(tmp_path: Path) -> None:
    first = [write_shot(tmp_path / f"a{i}.dng", "10:00:00", str(i)) for i in range(3)]
    second = [write_shot(tmp_path / "x" / f"b{i}.dng", f"10:00:0{4 + i}") for i in range(2)]
    other = [write_shot(tmp_path / f"c{i}.dng", "10:00:00", str(i), model="Two") for i in range(2)]
    files = [other[1], *second, first[2], other[0], *first[:2]]
    found = group_files(files, "time")
    assert sorted(found) == sorted([first, second, other])
    assert group_files(files, "folder") == [[f for f in files if f not in second], second]
    assert group_files(files, None) == [files]


def test_a_long_exposure_is_no_pause(tmp_path: Path) -> None:
    files = [
        write_shot(tmp_path / f"{i}.dng", f"10:00:{10 * i:02}", exposure_time=9.0) for i in range(3)
    ]
    assert group_files(files, "time") == [files]


def test_files_that_tell_no_time_or_nothing(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png.*--group-by folder"):
        group_files([tmp_path / "a.png"], "time")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert group_files([tmp_path / "b.png"], "time") == [[tmp_path / "b.png"]]
