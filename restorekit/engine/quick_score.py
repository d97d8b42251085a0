"""Score a model within seconds, on pictures that are drawn: nothing has to be at hand."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from restorekit.degradations.raster import smooth_field
from restorekit.engine.validation import validation_psnr
from restorekit.hub import LoadedModel
from restorekit.models.registry import Batch
from restorekit.tasks import TASKS

TOLERANCE = 0.05
"""Difference in dB that processors and versions of torch may make."""
PICTURES = 2
SIDE = 288
SHAPES = 3, 5, 8, 13, 21
TEXTURE = 100
EDGE = 30
SIGMA = 25.0


def quick_score(loaded: LoadedModel) -> float:
    """Return the PSNR in dB of two drawn pictures that were degraded as the model's task has it.

    The same model gives the same score within TOLERANCE everywhere; it says that weights work, not
    how good they are on photographs.
    """
    task, generator = TASKS[loaded.card.task], Generator().manual_seed(0)
    training = loaded.card.name.rpartition(".")[2]
    degrade = task.degrade(training if training in task.degradations else "", (SIGMA, SIGMA))
    if task.validations:
        *_, degrade = task.validations.values()
    clean = drawn_pictures(generator)
    if loaded.model.spec.out_channels == 1:
        clean = clean.mean(1, keepdim=True)
    batch: Batch = degrade(clean, generator)
    return validation_psnr(loaded.model, [batch], torch.autocast("cpu", enabled=False))


def drawn_pictures(generator: Generator) -> Tensor:
    """Draw (PICTURES, 3, SIDE, SIDE) in [0, 1]: shaded shapes, large to small."""

    def field(cells: int) -> Tensor:
        return smooth_field((PICTURES,), SIDE, SIDE, cells, generator)

    picture = field(SHAPES[0]).expand(-1, 3, -1, -1)
    for cells in SHAPES:
        grey, hue = (torch.rand(PICTURES, n, 1, 1, generator=generator) for n in (1, 3))
        colour = (0.7 * grey + 0.3 * hue) * (0.8 + 0.2 * field(TEXTURE))
        cover = (EDGE * (field(cells) - 0.7)).clamp(0, 1)
        picture = torch.lerp(picture, colour, cover)
    return picture
