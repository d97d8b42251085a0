import pytest
import torch
from torch import Tensor

from restorekit.image import NoiseProfile
from restorekit.ops.agreement import agreement, light_gain
from restorekit.ops.gaussian import blurred
from restorekit.ops.warp import Motion
from tests.shaken import GAINS, noisy, seeded, seen, texture


def scene(channels: int = 4, contrast: float = 60.0) -> Tensor:
    """Return a scene in units of its noise."""
    return contrast * texture(160, 200, seed=3, channels=channels)


def with_noise(clean: Tensor, seed: int, deviation: float = 1.0) -> Tensor:
    return clean + deviation * torch.randn(clean.shape, generator=seeded(seed))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_noise_alone_is_believed(channels: int) -> None:
    clean = scene(channels)
    weights = agreement(with_noise(clean, 0), with_noise(clean, 1))
    assert weights.shape == clean.shape[1:]
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= 1
    assert float(weights.mean()) > 0.95


def from_camera(clean: Tensor, seed: int) -> Tensor:
    """Return a scene with noise that is smooth, shared by colours in part, and grows with light."""
    own, shared = (
        blurred(torch.randn(count, *clean.shape[1:], generator=seeded(seed + index)), 0.8)
        for index, count in enumerate((len(clean), 1))
    )
    return clean + (own + shared) * torch.tensor([8.0, 2.0, 6.0])[:, None, None] * (
        0.5 + clean / 60
    )


def test_noise_of_a_camera_is_measured_and_believed() -> None:
    clean = scene(3)
    first, second = (from_camera(clean, seed) for seed in (0, 10))
    assert float(agreement(first, second).mean()) < 0.4
    assert float(agreement(first, second, white=False).mean()) > 0.9


def test_what_moved_does_not_pass_for_noise_of_a_camera() -> None:
    clean = scene(3)
    moved = clean.clone()
    moved[:, :, 20:100] = 60 - scene(3)[:, :, 20:100]
    first, second = from_camera(clean, 0), from_camera(moved, 10)
    weights = agreement(first, second, white=False)
    differing = blurred((moved - clean).abs().amax(0, keepdim=True), 2.0)[0] > 15
    assert float(differing.float().mean()) > 0.1
    assert float(weights[differing].mean()) < 0.05
    assert float(weights[:, 130:].mean()) > 0.85


@pytest.mark.parametrize("contrast", [3.0, 10.0, 60.0])
def test_a_thing_that_moved_is_refused_where_it_was_and_where_it_is(contrast: float) -> None:
    base = torch.full((4, 160, 200), 20.0)
    reference, frame = base.clone(), base.clone()
    reference[:, 40:80, 30:70] += contrast
    frame[:, 50:90, 110:150] += contrast
    weights = agreement(with_noise(reference, 0), with_noise(frame, 1))
    assert float(weights[40:80, 30:70].max()) < 0.2
    assert float(weights[50:90, 110:150].max()) < 0.2
    assert float(weights[120:].mean()) > 0.95


def test_half_a_pixel_off_is_no_other_thing() -> None:
    clean = scene()
    moved = seen(clean / 60, Motion(shift=0.4 - 0.3j)) * 60
    assert float(agreement(with_noise(clean, 0), with_noise(moved, 1)).mean()) > 0.9


def test_a_little_more_light_is_no_other_thing() -> None:
    clean = scene()
    assert float(agreement(with_noise(clean, 0), with_noise(1.01 * clean, 1)).mean()) > 0.9
    assert float(agreement(with_noise(clean, 0), with_noise(2 * clean, 1)).mean()) < 0.1


def test_noise_that_was_stated_too_low_is_seen() -> None:
    clean = torch.full((4, 160, 200), 5.0)
    means = [
        float(agreement(with_noise(clean, 0, std), with_noise(clean, 1, std)).mean())
        for std in (1.0, 1.8, 6.0)
    ]
    assert means[0] > 0.75
    assert means[1] > 0.65
    assert means[2] < 0.2


def test_what_moves_does_not_ease_the_comparison_though_it_is_most_of_the_frame() -> None:
    clean = torch.full((4, 320, 400), 20.0)
    changed = clean.clone()
    changed[..., :220] += 0.5
    weights = agreement(with_noise(clean, 0), with_noise(changed, 1))
    assert float(weights[:, :200].mean()) < 0.2
    assert float(weights[:, 240:].mean()) > 0.9


@pytest.mark.parametrize("size", [(1, 9), (7, 5), (33, 20)])
@pytest.mark.parametrize("white", [True, False])
def test_small_and_odd_pictures(size: tuple[int, int], white: bool) -> None:
    clean = torch.full((3, *size), 20.0)
    assert agreement(clean, clean, white=white).tolist() == torch.ones(size).tolist()


def test_a_blur_keeps_the_mean_and_reduces_the_noise_as_stated() -> None:
    noise = torch.randn(1, 400, 400, generator=seeded(2))
    for deviation in (1.0, 2.5):
        result = blurred(noise + 5, deviation)
        assert float(result.mean()) == pytest.approx(5, abs=0.02)
        assert float(result.std()) == pytest.approx(1 / (2 * torch.pi**0.5 * deviation), rel=0.05)


@pytest.mark.parametrize("noise", GAINS, ids=["gain1", "gain2", "gain3", "gain4"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_light_of_a_frame_is_found_beside_what_moved(noise: NoiseProfile, share: float) -> None:
    clean = texture(192, 256, seed=3, channels=4) * 0.4
    moved = clean.clone()
    thing = (..., slice(int(share * 256)))
    moved[thing] = 0.9 * texture(192, 256, seed=4, channels=4)[thing]
    usable = torch.ones(192, 256, dtype=torch.bool)
    for gain in (0.75, 1.0, 1.15, 1.4):
        base, other = noisy(clean, noise, 0), noisy(moved / gain, noise, 1)
        found = light_gain(base, other, usable, noise.shot, noise.read)
        assert found == 1 if gain == 1 else found == pytest.approx(gain, rel=0.02)


def test_correlated_noise_is_no_other_light() -> None:
    clean, usable = 0.1 * texture(192, 256, seed=3), torch.ones(192, 256, dtype=torch.bool)
    shot, read = GAINS[2].shot / 6, GAINS[2].read / 6**0.5
    for seed in range(0, 40, 2):
        base, other = (blurred(noisy(clean, GAINS[2], seed + frame), 0.7) for frame in (0, 1))
        assert light_gain(base, other, usable, shot, read) == 1


def test_light_that_cannot_be_told_is_left_as_it_is() -> None:
    dark = noisy(torch.zeros(3, 128, 128), GAINS[1], 0)
    usable = torch.ones(128, 128, dtype=torch.bool)
    assert light_gain(dark, dark / 2, usable, GAINS[1].shot, GAINS[1].read) == 1
    black = torch.zeros(3, 128, 128)
    assert light_gain(black, black, usable, 1e-6, 0.0) == 1
    bright = texture(128, 128, seed=3, channels=3)
    assert light_gain(bright, bright / 2, ~usable, 1e-6, 0.0) == 1
    assert light_gain(bright, bright / 2, usable, 1e-6, 0.0) == pytest.approx(2)
