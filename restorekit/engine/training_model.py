"""The network of a training run: how it begins, and the card it is saved with."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from restorekit.engine.recipe import TrainConfig
from restorekit.engine.reporter import Reporter
from restorekit.errors import ConfigError
from restorekit.hub import ModelCard, load_model
from restorekit.models.registry import RestorationModel, create_model
from restorekit.tasks import TASKS

LAYOUTS = {1: "gray", 3: "rgb", 4: "bayer"}


def fresh_model(config: TrainConfig, reporter: Reporter) -> RestorationModel:
    """Return the network of a recipe as its training begins, on the CPU.

    Raises:
        ConfigError: the weights of its start do not fit.
        UnavailableError: they are not there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = create_model(config.architecture, config.config)
    if config.start:
        _take_over(load_model(config.start).model.state_dict(), model, config.start, reporter)
    if config.channels_last:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _take_over(
    start: Mapping[str, Tensor], model: RestorationModel, name: str, reporter: Reporter
) -> None:
    """Copy the weights that fit, at least half of them; another input may have other planes."""
    own = model.state_dict()
    start = model.adopted(start)
    fitting = {k: v for k, v in start.items() if k in own and own[k].shape == v.shape}
    if 2 * len(fitting) < len(own):
        raise ConfigError(f"{name} does not fit this architecture")
    fresh = own.keys() - fitting.keys()
    if fresh:
        parts = {re.sub(r"(\.\d+)\..*", r"\1", key) for key in fresh}
        reporter.note(f"not in {name}, so fresh at least in part: {', '.join(sorted(parts))}")
    model.load_state_dict({**own, **fitting})


def training_card(
    config: TrainConfig,
    model: RestorationModel,
    *,
    steps: int,
    minutes: float,
    machine: str,
    scores: Mapping[str, float],
) -> ModelCard:
    """Return the card of a network after some steps.

    Args:
        config: the recipe.
        model: the network.
        steps: optimiser steps done.
        minutes: time spent.
        machine: number and kind of processors.
        scores: last validation in dB.
    """
    stages = ", ".join(
        f"{batch_size} patches of {patch}x{patch}" for _, patch, batch_size in config.stages
    )
    start = f"from {config.start}, " if config.start else ""
    recipe = (
        f"{start}AdamW {config.learning_rate:g}, {config.schedule}, {config.loss}, "
        f"EMA {config.ema:g}, {stages}, {config.dtype}, {steps} steps in "
        f"{minutes:.0f} minutes on {machine}, seed {config.seed}"
    )
    return ModelCard(
        name=config.name,
        architecture=config.architecture,
        config=model.config_values(),
        task=config.task,
        transfer=TASKS[config.task].transfer,
        layout=LAYOUTS[model.spec.out_channels],
        licence=config.licence,
        data=config.data_note,
        recipe=recipe,
        scores=dict(scores),
    )
