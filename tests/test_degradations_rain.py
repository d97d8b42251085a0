import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from restorekit.degradations import RainParameters, added_streaks, rain_streaks, sample_rain
from restorekit.degradations.rain import _draw_streaks

HEAVY = RainParameters(
    density=8, angle=20, spread=1, length=24, width=2, opacity=0.6, light=0.9, haze=0.4
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(3, 40, 50), (2, 3, 40, 50)])
def test_no_rain_leaves_the_picture_untouched(shape: tuple[int, ...]) -> None:
    linear = torch.rand(shape, generator=seeded(0))
    dry = replace(HEAVY, density=0, haze=0)
    assert torch.equal(rain_streaks(linear, dry, seeded(1)), linear)


def test_rain_brightens_the_dark_and_stays_in_range() -> None:
    dark = 0.5 * torch.rand(2, 3, 96, 96, generator=seeded(0))
    wet = rain_streaks(dark, HEAVY, seeded(1))
    assert (wet >= dark).all()
    assert float(wet.max()) <= HEAVY.light
    assert float((wet - dark).mean()) > 0.05
    assert not torch.equal(wet[0] - dark[0], wet[1] - dark[1])


def test_streaks_leave_what_is_brighter_than_drops() -> None:
    bright = torch.full((3, 64, 64), 0.95)
    assert torch.equal(rain_streaks(bright, replace(HEAVY, haze=0), seeded(1)), bright)


def test_the_veil_follows_the_law_of_attenuation() -> None:
    fog = replace(HEAVY, density=0, haze=1.5, light=0.6)
    scene = torch.stack((torch.zeros(64, 64), torch.full((64, 64), 0.9)))
    veiled = rain_streaks(scene, fog, seeded(2))
    transmission = (veiled[1] - veiled[0]) / 0.9
    torch.testing.assert_close(veiled[0], 0.6 * (1 - transmission))
    assert float(transmission.min()) >= math.exp(-1.5)
    assert 0 < float(transmission.max()) < 1


def test_the_light_of_streaks_grows_with_their_number() -> None:
    black = torch.zeros(1, 400, 400)
    faint = replace(HEAVY, haze=0, opacity=0.01, light=1.0)
    amounts = [
        sum(
            float(rain_streaks(black, replace(faint, density=d), seeded(s)).mean())
            for s in range(8)
        )
        for d in (1, 2, 4)
    ]
    assert abs(amounts[1] / amounts[0] - 2) < 0.2
    assert abs(amounts[2] / amounts[0] - 4) < 0.4


def test_one_faint_streak_has_the_light_of_its_size() -> None:
    gaussian_area = math.sqrt(math.pi / math.log(2)) / 2
    for lean in (0.0, 0.3, -0.8):
        for width in (0.4, 1.0, 3.0):
            thickness = torch.zeros(1, 96, 96)
            _draw_streaks(thickness, torch.tensor([[[47.3, 50.6, lean, 30, width, 0.2]]]))
            expected = 0.2 * 30 * width * gaussian_area
            assert abs(float(thickness.sum()) / expected - 1) < 0.03
            y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
            mass = thickness[0] / thickness.sum()
            y_mean, x_mean = float((mass * y).sum()), float((mass * x).sum())
            assert abs(y_mean - 47.3) < 0.05
            assert abs(x_mean - 50.6) < 0.05


@pytest.mark.parametrize("angle", [-35.0, 0.0, 25.0])
def test_streaks_lean_by_their_angle(angle: float) -> None:
    rain = replace(HEAVY, angle=angle, spread=0.0, haze=0, density=1, length=80, opacity=0.2)
    wet = rain_streaks(torch.zeros(1, 256, 256), rain, seeded(4))
    wet = F.avg_pool2d(F.avg_pool2d(wet, 3, 1), 3, 1)[0]
    down, right = wet.diff(dim=0)[:, :-1], wet.diff(dim=1)[:-1]
    crossed = 2 * float((down * right).mean())
    straight = float((right**2).mean() - (down**2).mean())
    normal = 0.5 * math.degrees(math.atan2(crossed, straight))
    assert abs(-normal - angle) < 3


def test_rain_depends_on_the_seed_alone() -> None:
    linear = torch.rand(3, 48, 48, generator=seeded(0))
    first, again, other = (rain_streaks(linear, HEAVY, seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert sample_rain(seeded(1)) == sample_rain(seeded(1)) != sample_rain(seeded(2))


def test_sampled_rain_runs_from_almost_none_to_heavy() -> None:
    generator = seeded(0)
    rains = [sample_rain(generator) for _ in range(500)]
    densities = sorted(rain.density for rain in rains)
    assert densities[0] < 0.01
    assert densities[-1] > 18
    assert densities[250] < 8
    for rain in rains:
        assert abs(rain.angle) <= 50
        assert 0.8 <= rain.width <= 4
        assert 6.4 <= rain.length <= 80
        assert 0.15 <= rain.opacity <= 1.2
        assert 0.35 <= rain.light <= 1
        assert 0 <= rain.haze <= 0.4


def test_added_streaks_are_the_same_light_on_any_scene() -> None:
    black, grey = torch.zeros(3, 48, 64), torch.full((3, 48, 64), 0.25)
    faint = replace(HEAVY, light=0.7, opacity=0.4, haze=2.0)
    light = added_streaks(black, faint, seeded(3))
    torch.testing.assert_close(added_streaks(grey, faint, seeded(3)), grey + light)
    assert float(light.min()) == 0
    assert 0.1 < float(light.max()) <= 0.7
    assert float(added_streaks(grey + 0.7, faint, seeded(3)).max()) == 1
