"""Remove sensor noise from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch

LARGEST_SIGMA = 75 / 255


def degrade(clean: Tensor, generator: Generator) -> Batch:
    """Add white Gaussian noise of a deviation drawn for every picture from [0, 75/255]."""
    import torch

    from restorekit.degradations import gaussian_noise
    from restorekit.models.registry import Batch

    std = torch.rand(len(clean), 1, 1, 1, generator=generator) * LARGEST_SIGMA
    return Batch(gaussian_noise(clean, std, generator), clean, std)


TASK = Task(
    name="denoise",
    summary="Remove noise from photographs, RAW or RGB.",
    default_model="kbnet_xs.gaussian",
    degrade=degrade,
    takes_noise_level=True,
)
