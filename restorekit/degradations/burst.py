"""Bursts of hand-held frames made from one photograph.

AME-KPN (Zhang et al., ICASSP 2020), Section 3.1, after KPN (Mildenhall et al., CVPR 2018): frames
are crops at offsets, reduced by a box filter, in linear light of a random white level, with
unclipped shot and read noise.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from restorekit.degradations.noise import shot_read_noise
from restorekit.errors import ConfigError

FRAMES = 8
GAMMA = 2.2
FAR = 16
"""Pixels that a frame may lie off at most, and so the margin that a burst needs on each side."""
SMALLEST = 8
"""Least side of a burst."""
FULL_SHARE = 0.7
"""Share of bursts that have all frames, whatever the rule."""
GAINS = ((5e-3, 1e-3), (2e-2, 4.3e-3), (5e-2, 1e-2), (8e-2, 2.3e-2))
"""Read and shot noise of the four noise levels of Table 1."""

_Range = tuple[float, float]


@dataclass(frozen=True)
class BurstRule:
    """Say how bursts are drawn; the defaults are the published rule.

    Attributes:
        shrink: side of the box filter; a burst has 1 / shrink of the photograph's resolution.
        near: offsets of ordinary frames, at most so many pixels of the burst; one is drawn a burst.
        stray: frames that lie up to FAR pixels off, on average; a Poisson number.
        fewest: least frames; most bursts have all, the others any number from this on.
        moving: share of bursts in which a part moves on its own.
        aligned: whether frames are shifted back by whole pixels of the burst, as alignment does.
        white: values of white, log-uniform.
        read: deviations at black, log-uniform.
        shot: variances a unit of signal, log-uniform.
    """

    shrink: int = 4
    near: tuple[float, ...] = (2.0,)
    stray: float = 1.5
    fewest: int = FRAMES
    moving: float = 0.0
    aligned: bool = False
    white: _Range = (0.1, 1.0)
    read: _Range = (1e-3, 10**-1.5)
    shot: _Range = (1e-4, 1e-2)

    def at_gain(self, gain: int) -> BurstRule:
        """Return the rule with the noise of Table 1's gain 1 to 4 and white 1."""
        read, shot = GAINS[gain - 1]
        return dataclasses.replace(self, white=(1, 1), read=(read, read), shot=(shot, shot))


@dataclass(frozen=True)
class Bursts:
    """Hold noisy bursts and the truth of their references, linear and unclipped.

    Attributes:
        frames: (B, FRAMES, C, H, W), the reference first; zeros where a burst has fewer.
        clean: (B, C, H, W).
        noise_std: (B, 1, H, W) deviation of the noise of the reference, by its own values.
        white: (B, 1, 1, 1) value of white.
    """

    frames: Tensor
    clean: Tensor
    noise_std: Tensor
    white: Tensor


PUBLISHED = BurstRule()
HAND_HELD = BurstRule(
    shrink=3,
    near=(0.5, 0.5, 1.0),
    stray=0.4,
    fewest=2,
    moving=0.3,
    white=(0.2, 1.0),
    read=(2e-3, 0.1),
    shot=(2e-4, 10**-1.5),
)
"""What a network meets after alignment: offsets of half a pixel where it is right, fewer frames,
moving parts, more noise."""


def make_bursts(encoded: Tensor, rule: BurstRule, generator: Generator) -> Bursts:
    """Make a burst of each photograph, its sides H // shrink - 2 * FAR and likewise.

    Args:
        encoded: (B, C, H, W) in [0, 1], of gamma GAMMA.
        rule: how.
        generator: source of all draws.

    Raises:
        ConfigError: the photographs are too small.
    """
    needed = rule.shrink * (2 * FAR + SMALLEST)
    if min(encoded.shape[2:]) < needed:
        raise ConfigError(f"bursts are made of at least {needed} x {needed} pixels")
    bursts = [_make_burst(picture, rule, generator) for picture in encoded]
    return Bursts(*(torch.stack(tensors) for tensors in zip(*bursts, strict=True)))


def draw_offsets(rule: BurstRule, generator: Generator) -> Tensor:
    """Draw where the frames of a burst lie, (FRAMES, 2) pixels of the photograph as y, x.

    The reference lies at 0. Aligned frames stay off by half a pixel of the burst at most.
    """
    count = torch.poisson(torch.tensor(rule.stray), generator=generator)
    is_far = torch.rand(FRAMES, 1, generator=generator) < count / FRAMES
    chosen = int(torch.randint(len(rule.near), (), generator=generator))
    reach = torch.where(is_far, float(FAR), rule.near[chosen]) * rule.shrink
    share = 2 * torch.rand(FRAMES, 2, generator=generator) - 1
    offsets = (share * (reach + 0.5)).round().clamp(-reach, reach).long()
    offsets[0] = 0
    if rule.aligned:
        offsets -= (offsets / rule.shrink).round().long() * rule.shrink
    return offsets


def shifted_frames(linear: Tensor, offsets: Tensor, shrink: int) -> Tensor:
    """Cut frames out of a picture and reduce them.

    Args:
        linear: (C, H, W).
        offsets: (N, 2) pixels of the picture as y, x, at most FAR * shrink.
        shrink: side of the box filter.

    Returns:
        (N, C, H // shrink - 2 * FAR, W // shrink - 2 * FAR).
    """
    margin = FAR * shrink
    height, width = (side // shrink * shrink - 2 * margin for side in linear.shape[1:])
    crops = [
        linear[:, margin + y : margin + y + height, margin + x : margin + x + width]
        for y, x in offsets.tolist()
    ]
    return F.avg_pool2d(torch.stack(crops), shrink)


def noise_map(reference: Tensor, read: float, shot: float) -> Tensor:
    """Return the (1, H, W) deviation of the noise of a noisy (C, H, W) frame, by its own values."""
    return (read**2 + shot * reference.clamp_min(0)).mean(0, keepdim=True).sqrt()


def _make_burst(
    encoded: Tensor, rule: BurstRule, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return frames, clean, noise_std and white of one photograph."""
    white = _draw(rule.white, generator)
    read, shot = _draw(rule.read, generator), _draw(rule.shot, generator)
    linear = encoded**GAMMA * white
    frames = shifted_frames(linear, draw_offsets(rule, generator), rule.shrink)
    clean = frames[0]
    if torch.rand((), generator=generator) < rule.moving:
        frames = _with_motion(frames, linear, rule, generator)
    noisy = shot_read_noise(frames, shot, read, generator)
    noisy[_draw_absent(rule, generator)] = 0
    return noisy, clean, noise_map(noisy[0], read, shot), torch.full((1, 1, 1), white)


def _with_motion(frames: Tensor, linear: Tensor, rule: BurstRule, generator: Generator) -> Tensor:
    """Let a rectangle of a quarter to three quarters of each side move evenly over the frames."""
    height, width = frames.shape[2:]
    speed = (2 * torch.rand(2, generator=generator) - 1) * FAR * rule.shrink / (FRAMES - 1)
    offsets = (torch.arange(FRAMES)[:, None] * speed).round().long()
    moved = shifted_frames(linear, offsets, rule.shrink)
    shares = torch.rand(4, generator=generator).tolist()
    high, wide = int(height * (0.25 + shares[0] / 2)), int(width * (0.25 + shares[1] / 2))
    top, left = int(shares[2] * (height - high + 1)), int(shares[3] * (width - wide + 1))
    part = (..., slice(top, top + high), slice(left, left + wide))
    mixed = frames.clone()
    mixed[part] = moved[part]
    return mixed


def _draw_absent(rule: BurstRule, generator: Generator) -> Tensor:
    """Draw which frames are missing, never the reference."""
    all_there = bool(torch.rand((), generator=generator) < FULL_SHARE)
    count = int(torch.randint(rule.fewest, FRAMES + 1, (), generator=generator))
    others = 1 + torch.randperm(FRAMES - 1, generator=generator)
    return others[FRAMES - 1 if all_there else count - 1 :]


def _draw(bounds: _Range, generator: Generator) -> float:
    low, high = (math.log(bound) for bound in bounds)
    return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
