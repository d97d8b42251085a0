import dataclasses

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from restorekit.degradations.burst import (
    FAR,
    FRAMES,
    GAINS,
    HAND_HELD,
    PUBLISHED,
    BurstRule,
    draw_offsets,
    make_bursts,
    noise_map,
    shifted_frames,
)
from restorekit.errors import ConfigError
from restorekit.tasks import TASKS

QUIET = BurstRule(white=(1, 1), read=(1e-9, 1e-9), shot=(1e-12, 1e-12))


def photograph(generator: Generator, side: int = 200, planes: int = 1) -> Tensor:
    return torch.rand(1, planes, side, side, generator=generator)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_frames_are_box_reduced_crops_at_their_offsets(generator: Generator) -> None:
    picture = photograph(generator, 148)[0]
    offsets = torch.tensor([[0, 0], [3, -7], [-64, 64]])
    frames = shifted_frames(picture, offsets, 4)
    assert frames.shape == (3, 1, 5, 5)
    pixels = picture[0].numpy()
    for frame, (y, x) in zip(frames, offsets.tolist(), strict=True):
        crop = pixels[64 + y : 84 + y, 64 + x : 84 + x]
        expected = crop.reshape(5, 4, 5, 4).mean((1, 3))
        np.testing.assert_allclose(frame[0].numpy(), expected, rtol=1e-5)


def test_published_offsets_follow_the_paper() -> None:
    drawn = torch.stack([draw_offsets(PUBLISHED, seeded(seed)) for seed in range(1500)])
    assert (drawn[:, 0] == 0).all()
    others = drawn[:, 1:]
    assert others.abs().max() == 64
    is_far = (others.abs() > 8).any(2).double().mean()
    inside = (17 / 129) ** 2  # a far frame may by chance lie near
    assert float(is_far) == pytest.approx(1.5 / 8 * (1 - inside), abs=0.015)
    near = others[(others.abs() <= 8).all(2)].flatten()
    counts = torch.bincount(near + 8, minlength=17).double() / len(near)
    assert (counts - 1 / 17).abs().max() < 0.01


def test_aligned_frames_stay_off_by_half_a_pixel() -> None:
    rule = dataclasses.replace(PUBLISHED, aligned=True)
    for seed in range(50):
        aligned, made = draw_offsets(rule, seeded(seed)), draw_offsets(PUBLISHED, seeded(seed))
        assert aligned.abs().max() <= 2
        assert ((made - aligned) % 4 == 0).all()


def test_alignment_changes_neither_reference_nor_noise() -> None:
    picture = photograph(seeded())
    rule = PUBLISHED.at_gain(2)
    made = make_bursts(picture, rule, seeded(1))
    aligned = make_bursts(picture, dataclasses.replace(rule, aligned=True), seeded(1))
    assert torch.equal(made.frames[:, 0], aligned.frames[:, 0])
    assert torch.equal(made.clean, aligned.clean)
    assert not torch.equal(made.frames, aligned.frames)


def test_the_truth_is_linear_and_scaled_by_white(generator: Generator) -> None:
    picture = photograph(generator)
    rule = dataclasses.replace(QUIET, white=(0.25, 0.25))
    burst = make_bursts(picture, rule, seeded())
    inner = picture[0, 0, 64:-64, 64:-64].numpy().astype(np.float64) ** 2.2
    expected = inner.reshape(18, 4, 18, 4).mean((1, 3)) / 4
    np.testing.assert_allclose(burst.clean[0, 0].numpy(), expected, rtol=1e-4)
    torch.testing.assert_close(burst.frames[:, 0], burst.clean, atol=1e-5, rtol=0)
    assert burst.white.flatten().tolist() == [0.25]


@pytest.mark.parametrize("gain", [1, 2, 3, 4])
def test_noise_has_the_variance_of_its_gain_and_is_not_clipped(gain: int) -> None:
    read, shot = GAINS[gain - 1]
    grey = torch.full((1, 1, 400, 400), 0.5)
    burst = make_bursts(grey, PUBLISHED.at_gain(gain), seeded())
    signal = 0.5**2.2
    residual = (burst.frames - signal).flatten(2)
    variance = read**2 + shot * signal
    assert float(residual.var()) == pytest.approx(variance, rel=0.02)
    correlation = float((residual[0, 1] * residual[0, 2]).mean())
    assert abs(correlation) < 0.03 * variance
    assert float(burst.noise_std.square().mean()) == pytest.approx(variance, rel=0.02)
    dark = make_bursts(torch.zeros(1, 1, 200, 200), PUBLISHED.at_gain(gain), seeded())
    assert float((dark.frames < 0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_noise_map_follows_the_noisy_reference() -> None:
    reference = torch.tensor([[[-0.1, 0.0, 0.25]]])
    expected = torch.tensor([0.01, 0.01, (0.01**2 + 0.04 * 0.25) ** 0.5])
    torch.testing.assert_close(noise_map(reference, 0.01, 0.04)[0, 0], expected)


def test_colour_bursts_shift_all_planes_alike(generator: Generator) -> None:
    picture = photograph(generator, planes=1).expand(-1, 3, -1, -1)
    burst = make_bursts(picture, QUIET, seeded())
    assert burst.frames.shape == (1, FRAMES, 3, 18, 18)
    torch.testing.assert_close(burst.frames[:, :, 0], burst.frames[:, :, 2], atol=1e-5, rtol=0)


def test_a_part_moves_evenly_while_the_rest_stands_still(generator: Generator) -> None:
    picture = photograph(generator, 300)
    still = dataclasses.replace(QUIET, near=(0.0,), stray=0.0)
    frames = make_bursts(picture, dataclasses.replace(still, moving=1.0), seeded()).frames[0, :, 0]
    moved = (frames - frames[0]).abs() > 1e-4
    assert not moved[0].any()
    share = float(moved[FRAMES - 1].double().mean())
    assert 0.05 < share < 0.57
    rows, columns = moved[FRAMES - 1].any(1).nonzero(), moved[FRAMES - 1].any(0).nonzero()
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    assert float(moved[FRAMES - 1][box].double().mean()) > 0.98
    quiet = make_bursts(picture, still, seeded()).frames
    torch.testing.assert_close(quiet, quiet[:, :1].expand_as(quiet), atol=1e-5, rtol=0)


def test_hand_held_bursts_lack_frames_but_never_the_reference(generator: Generator) -> None:
    picture = photograph(generator, 130).expand(300, -1, -1, -1)
    there = (make_bursts(picture, HAND_HELD, seeded()).frames != 0).flatten(2).any(2)
    assert there[:, 0].all()
    counts = torch.bincount(there.sum(1), minlength=FRAMES + 1).double() / len(there)
    assert counts[:2].sum() == 0
    assert float(counts[FRAMES]) == pytest.approx(0.7 + 0.3 / 7, abs=0.08)
    assert (counts[2:] > 0).all()
    assert there.double().mean(0)[1:].std() < 0.05


def test_levels_are_log_uniform(generator: Generator) -> None:
    picture = photograph(generator, 160).expand(400, -1, -1, -1)
    whites = make_bursts(picture, PUBLISHED, seeded()).white.flatten().log10()
    assert -1 <= whites.min() < -0.97
    assert -0.03 < whites.max() <= 0
    assert float(whites.mean()) == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("name", ["burst8", "published"])
def test_a_seed_gives_the_same_pairs(name: str, generator: Generator) -> None:
    degrade = TASKS["burst"].degradations[name]
    clean = photograph(generator, 160).expand(2, -1, -1, -1)
    first, again, other = (degrade(clean, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.degraded, again.degraded)
    assert not torch.equal(first.degraded, other.degraded)
    assert not torch.equal(first.degraded[0], first.degraded[1])
    assert first.degraded.shape[1] == FRAMES
    assert first.noise_std is not None
    assert first.noise_std.shape == first.clean.shape


def test_validation_bursts_have_all_frames(generator: Generator) -> None:
    for name, degrade in TASKS["burst"].validations.items():
        pair = degrade(photograph(generator), seeded())
        assert (pair.degraded != 0).flatten(2).any(2).all(), name


def test_small_photographs_are_refused(generator: Generator) -> None:
    smallest = 4 * (2 * FAR + 8)
    make_bursts(photograph(generator, smallest), PUBLISHED, seeded())
    with pytest.raises(ConfigError, match=f"at least {smallest} x {smallest}"):
        make_bursts(photograph(generator, smallest - 1), PUBLISHED, seeded())
