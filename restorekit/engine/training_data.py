"""The pictures of a training run: found, decoded and divided as its recipe says."""

from __future__ import annotations

from pathlib import Path

from restorekit.datasets import (
    PairedFolder,
    PictureCache,
    SyntheticPairs,
    TrainingPairs,
    cache_pairs,
    find_pictures,
    find_training_pairs,
)
from restorekit.engine.processes import Processes
from restorekit.engine.recipe import TrainConfig
from restorekit.engine.reporter import Reporter
from restorekit.errors import ConfigError
from restorekit.models.registry import ModelSpec, NoiseInput
from restorekit.tasks import TASKS


def training_pairs(
    config: TrainConfig, spec: ModelSpec, processes: Processes, reporter: Reporter
) -> TrainingPairs:
    """Return what a network is trained on; process 0 decodes, the others wait for it.

    Raises:
        ConfigError: the data is missing, too little, no pairs, or does not fit the network.
    """
    task = TASKS[config.task]
    states_noise = (task.takes_noise_level or task.burst) and not config.pairs
    if spec.noise_input is not NoiseInput.NONE and not states_noise:
        untold = "pairs do" if config.pairs else f"{config.task} does"
        raise ConfigError(
            f"{config.architecture} wants to be told the noise, which {untold} not state; "
            "set noise_map = false in [config]"
        )
    if task.burst != (spec.frames > 1):
        what = "bursts" if spec.frames > 1 else "single pictures"
        raise ConfigError(f"{config.architecture} is for {what}; {task.name} is not")
    if not config.data:
        raise ConfigError("there is nothing to train on; name folders of pictures with --data")
    cache = _decoded(config, processes, reporter)
    kind = PairedFolder if config.pairs else SyntheticPairs
    count = len(cache) // kind.pictures_each
    chosen = tuple(n for n in range(count) if n % config.holdout)
    if not chosen:
        raise ConfigError("too few pictures: none is left beside the validation")
    gray = spec.out_channels == 1
    if config.pairs:
        return PairedFolder(cache, chosen, config.seed, config.mixup, gray)

    degrade = task.degrade(config.degradation, config.sigma)
    pairs = SyntheticPairs(cache, chosen, config.seed, config.mixup, gray, degrade=degrade)
    planes = 0 if task.burst else pairs.batch(0, 1, config.stages[0][1]).degraded.shape[1]
    if planes not in (0, spec.in_channels):
        made = config.degradation or task.name
        raise ConfigError(
            f"{config.architecture} takes {spec.in_channels} planes, {made} makes {planes}; "
            f"set channels = {planes} in [config]"
        )
    return pairs


def _decoded(config: TrainConfig, processes: Processes, reporter: Reporter) -> PictureCache:
    data, folder = [Path(name) for name in config.data], Path(config.cache)
    pairs = find_training_pairs(data) if config.pairs else []
    pictures = [] if config.pairs else find_pictures(data)
    if processes.rank:
        processes.wait()
    reporter.start(len(pictures) + 2 * len(pairs), "decoding pictures")

    def advance(done: int, total: int) -> None:
        reporter.advance()

    if config.pairs:
        cache = cache_pairs(pairs, folder, advance)
    else:
        cache = PictureCache.build(pictures, folder, advance)
    reporter.finish()
    if not processes.rank:
        processes.wait()
    return cache
