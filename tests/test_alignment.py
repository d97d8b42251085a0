import pytest
import torch
from torch import Tensor

from restorekit.image import NoiseProfile
from restorekit.ops.alignment import align, consensus, tile_motion
from restorekit.ops.anscombe import anscombe
from restorekit.ops.warp import Motion
from tests.shaken import GAINS, hand_motion, noisy, seeded, seen, texture

HEIGHT, WIDTH = 480, 640


def stabilised(clean: Tensor, noise: NoiseProfile, seed: int) -> Tensor:
    black = anscombe(torch.zeros(()), noise.shot, noise.read)
    return anscombe(noisy(clean, noise, seed), noise.shot, noise.read) - black


def farthest(motion: Motion, truth: Motion, height: int = HEIGHT, width: int = WIDTH) -> float:
    """Return the endpoint error at the worst corner."""
    corners = [complex(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    return max(abs(motion.place(corner) - truth.place(corner)) for corner in corners)


def with_object(scene: Tensor, y: int, x: int) -> Tensor:
    """Return the scene behind something that hides 23 % of it."""
    hidden = scene.clone()
    height, width = int(0.48 * HEIGHT), int(0.48 * WIDTH)
    hidden[:, y : y + height, x : x + width] = texture(height, width, seed=77)
    return hidden


@pytest.mark.parametrize("moving", [False, True], ids=["still", "moving"])
@pytest.mark.parametrize("noise", GAINS, ids=["gain1", "gain2", "gain3", "gain4"])
def test_the_endpoint_error_is_below_half_a_pixel(noise: NoiseProfile, moving: bool) -> None:
    scene = texture(HEIGHT, WIDTH, seed=1)
    for seed, (shift, degrees) in enumerate([(45 - 16j, 0.4), (-3.3 + 47j, -0.4), (0.5 + 0.4j, 0)]):
        truth = hand_motion(HEIGHT, WIDTH, shift, degrees)
        reference, frame = scene, seen(scene, truth)
        if moving:
            reference = with_object(scene, 100, 80)
            frame = with_object(frame, 130, 150)
        found = align(
            stabilised(reference, noise, seed)[0], stabilised(frame, noise, 100 + seed)[0]
        )
        assert farthest(found.motion, truth) <= 0.5
        assert found.inliers >= 0.16


def test_a_shift_that_is_larger_than_a_tile_is_found() -> None:
    scene = texture(560, 560, seed=2)
    truth = hand_motion(560, 560, 80 - 60j, 0.2)
    found = align(stabilised(scene, GAINS[1], 0)[0], stabilised(seen(scene, truth), GAINS[1], 1)[0])
    assert farthest(found.motion, truth, 560, 560) <= 0.5


def test_large_pictures_are_reduced_and_the_motion_is_that_of_the_whole() -> None:
    scene = texture(200, 1400, seed=3)
    truth = hand_motion(200, 1400, 6.4 - 3.2j, 0.1)
    found = align(stabilised(scene, GAINS[0], 0)[0], stabilised(seen(scene, truth), GAINS[0], 1)[0])
    assert farthest(found.motion, truth, 200, 1400) <= 0.5


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (192, 256)])
def test_unrelated_pictures_share_few_tiles(size: tuple[int, int]) -> None:
    for number, noise in enumerate(GAINS):
        reference = stabilised(texture(*size, seed=10 + number), noise, 0)[0]
        other = stabilised(texture(*size, seed=20 + number), noise, 1)[0]
        assert align(reference, other).inliers < 0.1


def test_pictures_without_content_are_no_error() -> None:
    flat = torch.zeros(96, 128)
    assert align(flat, flat).motion.place(30 + 20j) == pytest.approx(30 + 20j)
    noise = torch.randn(2, 96, 128, generator=seeded(0))
    assert align(*noise).inliers < 0.1


def test_the_same_pictures_give_the_same_motion() -> None:
    scene = texture(192, 256, seed=4)
    pair = stabilised(scene, GAINS[2], 0)[0], stabilised(scene, GAINS[2], 1)[0]
    assert align(*pair) == align(*pair)


def test_tiles_tell_where_they_lie() -> None:
    scene = texture(256, 256, seed=5)[0]
    moved = torch.roll(scene, (7, -12), (0, 1))
    centers, targets = tile_motion(scene, moved, Motion())
    inner = centers[(centers - (128 + 128j)).abs() < 60]
    expected = inner + (-12 + 7j)
    found = targets[(centers - (128 + 128j)).abs() < 60]
    assert float((found - expected).abs().max()) < 0.25


def test_a_consensus_stands_against_a_majority_of_wrong_places() -> None:
    generator = seeded(6)
    places = torch.complex(*(1000 * torch.rand(2, 60, generator=generator, dtype=torch.float64)))
    truth = hand_motion(1000, 1000, 12 - 5j, 0.7)
    targets = truth.turn * places + truth.shift
    wrong = torch.complex(*(90 * torch.rand(2, 40, generator=generator, dtype=torch.float64)))
    targets[:40] += wrong + 5
    motion, fitting = consensus(places, targets)
    assert fitting.tolist() == [False] * 40 + [True] * 20
    assert farthest(motion, truth, 1000, 1000) < 1e-6
