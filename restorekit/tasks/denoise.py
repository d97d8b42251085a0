"""Remove sensor noise from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch


def gaussian(
    clean: Tensor, generator: Generator, sigma: tuple[float, float] = (0.0, 75.0)
) -> Batch:
    """Add white Gaussian noise of a deviation drawn for every picture from a range in 0-255."""
    import torch

    from restorekit.degradations import gaussian_noise
    from restorekit.models.registry import Batch

    low, high = (bound / 255 for bound in sigma)
    std = torch.rand(len(clean), 1, 1, 1, generator=generator) * (high - low) + low
    return Batch(gaussian_noise(clean, std, generator), clean, std)


TASK = Task(
    name="denoise",
    summary="Remove noise from photographs, RAW or RGB.",
    default_model="kbnet_xs.gaussian",
    degradations={"gaussian": gaussian},
    takes_noise_level=True,
    takes_mosaics=True,
)
