from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from restorekit.degradations import (
    as_file,
    defocused,
    grainy,
    mostly,
    photographed,
    photographs,
    rainy,
    shaken,
)
from restorekit.metrics import psnr
from restorekit.ops.color import linear_to_srgb, luma, srgb_to_linear

KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "rain": rainy,
    "motion": shaken,
    "defocus": defocused,
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(seed: int, darkest: float = 0.1, brightest: float = 0.8) -> torch.Tensor:
    """Return a (3, 96, 96) picture of patches and texture, in steps of 1/255."""
    coarse = torch.rand(1, 3, 12, 12, generator=seeded(seed))
    fine = torch.rand(3, 96, 96, generator=seeded(seed + 1)) - 0.5
    patches = F.interpolate(coarse, (96, 96), mode="nearest")[0]
    picture = darkest + (brightest - darkest) * (0.8 * patches + 0.2 * (fine + 0.5))
    return (picture * 255).round() / 255


@pytest.fixture
def perfect_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store pictures without noise and compression."""
    monkeypatch.setattr(photographs, "NOISY_SHARE", 0.0)
    monkeypatch.setattr(photographs, "JPEG_SHARE", 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_8_bit_files(kind: str) -> None:
    for seed in range(8):
        made = KINDS[kind](scene(seed, 0.0, 1.0), seeded(seed))
        assert made.shape == (3, 96, 96)
        levels = made * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
        assert 0 <= float(made.min()) <= float(made.max()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_depend_on_the_seed_alone(kind: str) -> None:
    clean = scene(0)
    first, again, other = (KINDS[kind](clean, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.usefixtures("perfect_files")
def test_rain_added_to_encoded_values_only_brightens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "ADDED_SHARE", 1.0)
    for seed in range(12):
        clean = scene(seed)
        assert (rainy(clean, seeded(seed)) >= clean - 1e-6).all()


@pytest.mark.usefixtures("perfect_files")
def test_rain_in_linear_light_moves_a_scene_towards_the_light_of_the_drops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photographs, "ADDED_SHARE", 0.0)
    darkest_light = float(linear_to_srgb(torch.tensor(0.35)))
    for seed in range(12):
        dark = scene(seed, brightest=darkest_light)
        assert (rainy(dark, seeded(seed)) >= dark - 1e-6).all()
        white = torch.ones(3, 96, 96)
        assert (rainy(white, seeded(seed)) >= darkest_light).all()


def test_heavier_rain_hides_more() -> None:
    def loss(heaviness: tuple[float, float]) -> float:
        made = [psnr(rainy(scene(s), seeded(s), heaviness), scene(s)) for s in range(20)]
        return sum(made) / len(made)

    drizzle, light, heavy = (loss(bounds) for bounds in ((0.0, 0.05), (0.2, 0.5), (0.6, 1.0)))
    assert drizzle > light + 3
    assert light > heavy + 3
    assert drizzle > 35


@pytest.mark.usefixtures("perfect_files")
@pytest.mark.parametrize("kind", ["motion", "defocus"])
def test_blur_keeps_the_light_of_an_unsaturated_scene(kind: str) -> None:
    quiet = torch.full((3, 96, 96), 0.4)
    quiet[:, 30:60, 30:60] = scene(5)[:, 30:60, 30:60]
    for seed in range(8):
        blurred = KINDS[kind](quiet, seeded(seed))
        before, after = (srgb_to_linear(p).mean() for p in (quiet, blurred))
        torch.testing.assert_close(after, before, rtol=0.01, atol=0)


@pytest.mark.usefixtures("perfect_files")
@pytest.mark.parametrize("kind", ["motion", "defocus"])
def test_clipped_highlights_spill_more_light_than_they_show(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = torch.zeros(3, 96, 96)
    lamp[:, 46:50, 46:50] = 1.0
    total = dict[float, float]()
    for share in (0.0, 1.0):
        monkeypatch.setattr(photographs, "BRIGHT_SHARE", share)
        made = [srgb_to_linear(KINDS[kind](lamp, seeded(seed))) for seed in range(20)]
        assert all(float(picture.max()) <= 1 for picture in made)
        total[share] = sum(float(picture.sum()) for picture in made)
    assert total[1.0] > 1.2 * total[0.0]


@pytest.mark.usefixtures("perfect_files")
def test_longer_motion_and_larger_apertures_blur_more() -> None:
    def sharpness(blurred: torch.Tensor) -> float:
        return float(blurred.diff(dim=-1).square().mean() + blurred.diff(dim=-2).square().mean())

    def mean(kind: str, *bounds: float) -> float:
        return sum(sharpness(KINDS[kind](scene(s), seeded(s), *bounds)) for s in range(10)) / 10

    clean = sum(sharpness(scene(s)) for s in range(10)) / 10
    assert clean > mean("motion", 0, 4) > mean("motion", 4, 8) > mean("motion", 12, 17)
    assert clean > mean("defocus", 0, 1.5) > mean("defocus", 1, 3) > mean("defocus", 3, 5)


@pytest.mark.usefixtures("perfect_files")
def test_one_in_ten_pictures_is_spared() -> None:
    clean = torch.randint(0, 256, (2000, 1, 1, 1), generator=seeded(0)) / 255
    made = mostly(lambda picture, _: picture + 1, clean, seeded(1))
    spared = (made == clean).view(-1)
    assert 0.08 < float(spared.float().mean()) < 0.12
    assert torch.equal(made[~spared], clean[~spared] + 1)


def test_cameras_leave_noise_that_is_coarser_than_white_noise() -> None:
    below = []
    for seed in range(20):
        clean = scene(seed, 0.4, 0.6)
        noisy, truth = photographed(clean, seeded(seed))
        again, _ = photographed(clean, seeded(seed))
        assert torch.equal(noisy, again)
        assert noisy.shape == truth.shape == clean.shape
        torch.testing.assert_close(255 * noisy, (255 * noisy).round(), rtol=0, atol=1e-4)
        noise = luma(noisy - truth)
        correlation = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
        below.append(float(correlation) < 0.05)
    assert sum(below) < 8


def test_cameras_may_have_stronger_noise_than_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "SMOOTHED_SHARE", 0.0)
    monkeypatch.setattr(photographs, "CAMERA_JPEG_SHARE", 0.0)
    usual, stronger = (
        [
            float((noisy - truth).std())
            for seed in range(30)
            for noisy, truth in [photographed(scene(seed), seeded(seed), 0.0, strongest)]
        ]
        for strongest in (1.0, 4.0)
    )
    assert max(stronger) > 1.5 * max(usual)
    assert 1.2 < sum(stronger) / sum(usual) < 2.2


def test_colours_share_white_noise_to_a_varying_extent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "CAMERA_JPEG_SHARE", 0.0)
    grey, shared = torch.full((3, 96, 96), 0.5), []
    for seed in range(40):
        noise = grainy(grey, 20 / 255, seeded(seed)) - grey
        assert 255 * float(noise.std()) == pytest.approx(20, rel=0.05)
        shared.append(float(noise.mean(0).var() / noise.var()))
    alone = sum(share == pytest.approx(1 / 3, abs=0.02) for share in shared)
    assert 10 < alone < 30
    assert max(shared) > 0.9


def test_noisy_files_have_the_noise_that_jpeg_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "SHARED_SHARE", 0.0)
    grey, chroma = torch.full((3, 96, 96), 0.5), []
    for seed in range(30):
        noisy = grainy(grey, 20 / 255, seeded(seed))
        torch.testing.assert_close(255 * noisy, (255 * noisy).round(), rtol=0, atol=1e-4)
        chroma.append(float((noisy - luma(noisy)).std() / (noisy - grey).std()))
    assert min(chroma) < 0.4 < 0.7 < max(chroma)


def test_some_photographs_are_grey() -> None:
    clean = scene(0)[:, :16, :16]
    pairs = [photographed(clean, seeded(seed)) for seed in range(200)]
    grey = [(noisy == noisy[:1]).all() and (truth == truth[:1]).all() for noisy, truth in pairs]
    assert 8 < sum(map(bool, grey)) < 35


def test_files_are_mostly_good() -> None:
    clean = (F.avg_pool2d(scene(0), 9, 1, 4) * 255).round() / 255
    scores = sorted(psnr(as_file(clean, seeded(seed)), clean) for seed in range(200))
    perfect = sum(score == float("inf") for score in scores)
    assert 60 < perfect < 120
    assert scores[0] > 33
    assert scores[40] > 37
