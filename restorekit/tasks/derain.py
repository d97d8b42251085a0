"""Remove rain from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch


def rain(clean: Tensor, generator: Generator) -> Batch:
    """Let it rain in most pictures, from next to nothing to a cloudburst."""
    from restorekit.degradations import mostly, rainy
    from restorekit.models.registry import Batch

    return Batch(mostly(rainy, clean, generator), clean)


TASK = Task(
    name="derain",
    summary="Remove rain from photographs.",
    default_model="kbnet_xs.rain",
    degradations={"rain": rain},
)
