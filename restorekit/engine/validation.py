"""How good a network is on pictures that its training never sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from restorekit.datasets import TrainingPairs
from restorekit.degradations import gaussian_noise
from restorekit.engine.recipe import TrainConfig
from restorekit.metrics import psnr
from restorekit.models.registry import Batch, RestorationModel
from restorekit.ops.color import linear_to_srgb
from restorekit.tasks import TASKS
from restorekit.tasks.task import Degrade


def validation_psnr(
    model: RestorationModel, samples: Iterable[Batch], precision: torch.autocast
) -> float:
    """Return the mean PSNR in dB over some pairs, of linear pictures as sRGB.

    Args:
        model: network in evaluation mode, on its device.
        samples: pairs, each a batch of one.
        precision: autocast to run in.
    """
    device = next(model.parameters()).device
    scores = []
    for sample in samples:
        held = sample.to(device)
        with torch.no_grad(), precision:
            restored = model(held.degraded, held.noise_std).float().cpu()
        if sample.white is None:
            scores.append(psnr(restored.clamp(0, 1), sample.clean))
        else:
            pictures = (
                linear_to_srgb(p / sample.white).clamp(0, 1) for p in (restored, sample.clean)
            )
            scores.append(psnr(*pictures))
    return sum(scores) / len(scores)


def validation_samples(pairs: TrainingPairs, config: TrainConfig) -> Mapping[str, Iterator[Batch]]:
    """Return the centres of the pictures that are kept back, by what a score is called."""
    count = len(pairs.cache) // pairs.pictures_each
    kept = range(0, count, config.holdout)
    task = TASKS[config.task]
    if task.validations and not config.pairs:
        return {
            f"validation {name}": _made_centres(pairs, kept, degrade, config.validation_crop)
            for name, degrade in task.validations.items()
        }
    if config.pairs or not task.takes_noise_level:
        return {"validation": _centres(pairs, kept, config.validation_crop)}
    return {
        f"validation sigma {sigma:g}": _noisy_centres(pairs, kept, sigma, config.validation_crop)
        for sigma in config.validation_sigma
    }


def _centres(pairs: TrainingPairs, kept: Sequence[int], side: int) -> Iterator[Batch]:
    """Yield pairs of centres; where they are made, each is always made the same way."""
    for scene in kept:
        yield pairs.pair(pairs.centre(scene, side), torch.Generator().manual_seed(scene))


def _made_centres(
    pairs: TrainingPairs, kept: Sequence[int], degrade: Degrade, side: int
) -> Iterator[Batch]:
    """Yield what a degradation makes of clean centres, of each always the same."""
    for scene in kept:
        yield degrade(pairs.centre(scene, side), torch.Generator().manual_seed(scene))


def _noisy_centres(
    pairs: TrainingPairs, kept: Sequence[int], sigma: float, side: int
) -> Iterator[Batch]:
    """Yield clean centres with white Gaussian noise, for each its own and always the same."""
    for scene in kept:
        clean = pairs.centre(scene, side)
        generator = torch.Generator().manual_seed(scene)
        std = torch.full((1, 1, 1, 1), sigma / 255)
        yield Batch(gaussian_noise(clean, std, generator), clean, std)
