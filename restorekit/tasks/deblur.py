"""Remove the blur of a moving camera or of a lens out of focus from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch

SHORTEST, LONGEST = 4.0, 9.0


def motion(clean: Tensor, generator: Generator) -> Batch:
    """Shake most pictures."""
    from restorekit.degradations import mostly, shaken
    from restorekit.models.registry import Batch

    return Batch(mostly(shaken, clean, generator), clean)


def straight(clean: Tensor, generator: Generator) -> Batch:
    """Blur all pictures by uniform motion of 4 to 9 pixels, and do nothing else to them.

    A network that first learns this finds the direction of a motion; from motion alone it may learn
    for long to sharpen in all directions.
    """
    import math

    import torch

    from restorekit.degradations import convolve, line_psf
    from restorekit.models.registry import Batch
    from restorekit.ops.color import linear_to_srgb, srgb_to_linear

    length, angle = torch.rand(2, len(clean), generator=generator)
    psf = line_psf(SHORTEST + (LONGEST - SHORTEST) * length, math.pi * angle)
    light = convolve(srgb_to_linear(clean), psf)
    return Batch(linear_to_srgb(light.clamp(0, 1)), clean)


def defocus(clean: Tensor, generator: Generator) -> Batch:
    """Put most pictures out of focus."""
    from restorekit.degradations import defocused, mostly
    from restorekit.models.registry import Batch

    return Batch(mostly(defocused, clean, generator), clean)


TASK = Task(
    name="deblur",
    summary="Remove motion blur from photographs; defocus by --model kbnet_xs.defocus.",
    default_model="kbnet_xs.motion",
    degradations={"motion": motion, "defocus": defocus, "straight": straight},
    takes_psf=True,
)
