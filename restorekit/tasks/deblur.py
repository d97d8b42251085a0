"""Remove the blur of a moving camera or of a lens out of focus from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch


def motion(clean: Tensor, generator: Generator) -> Batch:
    """Shake most pictures."""
    from restorekit.degradations import mostly, shaken
    from restorekit.models.registry import Batch

    return Batch(mostly(shaken, clean, generator), clean)


def defocus(clean: Tensor, generator: Generator) -> Batch:
    """Put most pictures out of focus."""
    from restorekit.degradations import defocused, mostly
    from restorekit.models.registry import Batch

    return Batch(mostly(defocused, clean, generator), clean)


TASK = Task(
    name="deblur",
    summary="Remove motion blur from photographs; defocus by --model kbnet_xs.defocus.",
    default_model="kbnet_xs.motion",
    degradations={"motion": motion, "defocus": defocus},
    takes_psf=True,
)
