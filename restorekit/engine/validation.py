"""How good a network is on pictures that its training never sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from restorekit.datasets import TrainingPairs
from restorekit.degradations import gaussian_noise
from restorekit.engine.evaluate import evaluate
from restorekit.engine.methods import network
from restorekit.engine.protocols import Level, find_sources
from restorekit.engine.recipe import TrainConfig
from restorekit.hub import LoadedModel, ModelCard
from restorekit.metrics import PROTOCOLS, psnr
from restorekit.models.registry import Batch, RestorationModel
from restorekit.ops.color import linear_to_srgb
from restorekit.tasks import TASKS
from restorekit.tasks.task import Degrade


def validation_scores(
    model: RestorationModel,
    card: ModelCard,
    pairs: TrainingPairs,
    config: TrainConfig,
    precision: torch.autocast,
) -> dict[str, float]:
    """Return the PSNR in dB of a network on the validation pictures of a run, by their names.

    These are the pictures of the recipe's protocol where it has any, else those kept back.

    Args:
        model: network in evaluation mode, on its device.
        card: of the network.
        pairs: of the run.
        config: of the run.
        precision: autocast to run in.

    Raises:
        NoInputError, UsageError: the protocol finds no pictures, or none that fit.
    """
    if config.validation_data:
        return _protocol_scores(LoadedModel(model, card), config)
    return {
        name: round(validation_psnr(model, samples, precision), 4)
        for name, samples in validation_samples(pairs, config).items()
    }


def check_protocol(config: TrainConfig) -> None:
    """Look for the pictures of a recipe's protocol before any training.

    Raises:
        NoInputError, UsageError: there are none, or they do not fit.
    """
    if config.validation_data:
        find_sources(PROTOCOLS[config.protocol], Path(config.validation_data))


def _protocol_scores(loaded: LoadedModel, config: TrainConfig) -> dict[str, float]:
    protocol, place = PROTOCOLS[config.protocol], next(loaded.model.parameters()).device
    method = network(loaded, device=str(place), dtype=config.dtype)
    sigmas = config.validation_sigma if protocol.sigmas else ()
    rows = evaluate([method], protocol, Path(config.validation_data), sigmas).rows
    return {
        f"{protocol.name} {Level(row.sigma, row.gain)}".strip(): round(row.psnr, 4) for row in rows
    }


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
    if config.pairs or not task.draws_sigma(config.degradation):
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
