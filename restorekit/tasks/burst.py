"""Make one clean picture from a burst of frames."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.degradations.burst import BurstRule
    from restorekit.models.registry import Batch


def hand_held(clean: Tensor, generator: Generator, gain: int | None = None) -> Batch:
    """Make bursts of 2 to 8 frames as they are after alignment, at a third of the resolution.

    With a gain, all have 8 frames, at most a pixel off but for stray ones, and its noise.
    """
    from dataclasses import replace

    from restorekit.degradations.burst import FRAMES, HAND_HELD

    if gain is None:
        return _made(clean, HAND_HELD, generator)
    return _made(clean, replace(HAND_HELD, near=(1.0,), fewest=FRAMES).at_gain(gain), generator)


def published(clean: Tensor, generator: Generator) -> Batch:
    """Make bursts by the published rule, at a quarter of the resolution."""
    from restorekit.degradations.burst import PUBLISHED

    return _made(clean, PUBLISHED, generator)


def _made(clean: Tensor, rule: BurstRule, generator: Generator) -> Batch:
    from restorekit.degradations.burst import make_bursts
    from restorekit.models.registry import Batch

    bursts = make_bursts(clean, rule, generator)
    return Batch(bursts.frames.flatten(1, 2), bursts.clean, bursts.noise_std, bursts.white)


TASK = Task(
    name="burst",
    summary="Make one clean picture from a burst of RAW or RGB frames.",
    default_model="ame_kpn.burst8",
    degradations={"burst8": hand_held, "published": published},
    validations={f"gain {gain}": partial(hand_held, gain=gain) for gain in (1, 3)},
    burst=True,
    takes_mosaics=True,
    transfer="linear",
)
