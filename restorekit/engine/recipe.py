"""What a training run does, as a recipe in TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restorekit.errors import ConfigError
from restorekit.losses import criterion_by_name
from restorekit.models.registry import torch_dtype
from restorekit.tasks import TASKS


@dataclass(frozen=True)
class TrainConfig:
    """Describe a training run; a recipe is the same as TOML.

    Attributes:
        task: what the network learns.
        name: name of the trained model, `architecture.training`.
        architecture: network in the registry.
        config: settings of the network.
        data: folders of clean pictures.
        run: folder of checkpoints, log and weights.
        cache: folder of decoded pictures.
        start: model whose weights are the start, or empty for fresh ones.
        steps: optimiser steps in all.
        batch_size: pictures of a step, over all processes.
        patch: side of the crops in pixels.
        learning_rate: peak of the schedule.
        final_learning_rate: end of the cosine.
        warmup_steps: steps of linear warm-up.
        betas: moments of AdamW.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        ema: decay of the averaged weights, a step.
        loss: name in restorekit.losses.
        dtype: of autocast, float32 for none.
        seed: of weights, crops and noise.
        validate_every: steps between validations and checkpoints.
        holdout: every how many pictures one is kept for validation.
        validation_sigma: noise of the validation, in 0-255 units.
        validation_crop: side of the validation pictures.
        max_minutes: wall-clock limit of the whole run, 0 for none.
        finish: whether the schedule ends with the limit; else the run stays resumable.
        licence: of the weights, for the card.
        data_note: of the training data, for the card.
    """

    task: str = "denoise"
    name: str = "kbnet_xs.custom"
    architecture: str = "kbnet_xs"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = ()
    run: str = "runs/train"
    cache: str = "runs/cache"
    start: str = ""
    steps: int = 20000
    batch_size: int = 16
    patch: int = 96
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    loss: str = "l1"
    dtype: str = "bfloat16"
    seed: int = 0
    validate_every: int = 1000
    holdout: int = 60
    validation_sigma: tuple[float, ...] = (25.0, 50.0)
    validation_crop: int = 256
    max_minutes: float = 0.0
    finish: bool = False
    licence: str = ""
    data_note: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without reading files."""
        if self.task not in TASKS:
            raise ConfigError(f"there is no task {self.task!r}; known: {', '.join(TASKS)}")
        positive = ("steps", "batch_size", "patch", "learning_rate", "clip", "validate_every")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0")
        if not 0 <= self.ema < 1:
            raise ConfigError("ema must be at least 0 and below 1")
        if self.holdout < 2:
            raise ConfigError("holdout must be at least 2")
        if self.finish and not self.max_minutes:
            raise ConfigError("finish needs max_minutes")
        criterion_by_name(self.loss)
        torch_dtype(self.dtype)

    @classmethod
    def read(cls, path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
        """Read a TOML recipe and apply changes to it.

        Raises:
            ConfigError: the file cannot be read, or a setting is unknown or out of range.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path} is no TOML: {error}") from error
        return cls.from_values({**values, **(changes or {})})

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build a config from TOML or JSON values.

        Raises:
            ConfigError: a setting is unknown, of the wrong type or out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := values.keys() - fields.keys():
            raise ConfigError(f"the recipe has unknown settings: {', '.join(sorted(unknown))}")
        typed: dict[str, Any] = {}
        for name, value in values.items():
            default = cls.__dataclass_fields__[name].default
            if isinstance(default, tuple) and isinstance(value, list):
                value = tuple(value)
            if isinstance(default, float) and isinstance(value, int):
                value = float(value)
            if default is not dataclasses.MISSING and not isinstance(value, type(default)):
                raise ConfigError(
                    f"{name} of the recipe should be of type {type(default).__name__}"
                )
            typed[name] = value
        return cls(**typed)
