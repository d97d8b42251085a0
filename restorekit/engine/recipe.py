"""What a training run does, as a recipe in TOML."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restorekit.errors import ConfigError
from restorekit.losses import criterion_by_name
from restorekit.metrics import PROTOCOLS
from restorekit.models.registry import torch_dtype
from restorekit.tasks import TASKS

SCHEDULES = ("cosine", "step")
_RULES: Mapping[str, tuple[tuple[str, ...], Callable[[Any], object]]] = {
    "above 0 and finite": (
        ("steps", "batch_size", "patch", "accumulate", "learning_rate", "decay_every", "clip")
        + ("validate_every", "validation_crop"),
        lambda value: 0 < value < math.inf,
    ),
    "at least 0 and finite": (
        ("workers", "final_learning_rate", "warmup_steps", "flat_steps", "weight_decay")
        + ("max_minutes",),
        lambda value: 0 <= value < math.inf,
    ),
    "at least 2": (("holdout",), lambda value: value >= 2),
    "at least 0 and below 1": (("ema",), lambda value: 0 <= value < 1),
    "above 0 and at most 1": (("decay",), lambda value: 0 < value <= 1),
    "within 64 bits": (("seed",), lambda value: -(2**63) <= value < 2**63),
    "two numbers from 0 to below 1": (
        ("betas",),
        lambda pair: len(pair) == 2 and all(0 <= beta < 1 for beta in pair),
    ),
    "the least and the greatest deviation, from 0 to 255": (
        ("sigma",),
        lambda pair: len(pair) == 2 and 0 <= pair[0] <= pair[1] <= 255,
    ),
    "one or more deviations from 0 to 255": (
        ("validation_sigma",),
        lambda sigmas: sigmas and all(0 <= sigma <= 255 for sigma in sigmas),
    ),
    "rows of steps, patch and batch size, whole numbers above 0": (
        ("progressive",),
        lambda rows: all(
            isinstance(row, tuple)
            and len(row) == 3
            and all(type(number) is int and number > 0 for number in row)
            for row in rows
        ),
    ),
    "a table": (("config",), lambda table: isinstance(table, Mapping)),
    "names of folders": (
        ("data",),
        lambda folders: all(isinstance(folder, str) and folder for folder in folders),
    ),
    "the name of a folder": (("run", "cache"), bool),
    "a name without / and \\": (("name",), re.compile(r"[^/\\]+").fullmatch),
}
"""What settings must be: their names, and what holds of a value that fits."""


@dataclass(frozen=True)
class TrainConfig:
    """Describe a training run; a recipe is the same as TOML.

    Attributes:
        task: what the network learns.
        degradation: what is done to clean pictures, one of the task; its first where empty.
        name: name of the trained model, `architecture.training`.
        architecture: network in the registry.
        config: settings of the network.
        data: folders of clean pictures, or of pairs.
        pairs: whether data holds degraded and clean files, see datasets.find_pairs.
        run: folder of checkpoints, log and weights.
        cache: folder of decoded pictures.
        start: model whose weights are the start, or empty for fresh ones.
        steps: optimiser steps in all.
        batch_size: pictures of a step, over all processes.
        patch: side of the crops in pixels.
        progressive: rows of (steps, patch, batch size) in turn, in place of the three above.
        accumulate: pieces that a process cuts its share of a batch into, to save memory.
        sigma: range of the noise deviations that are drawn, in 0-255 units, to denoise.
        mixup: whether half of the samples are mixtures of two.
        workers: threads that prepare the next batch meanwhile, 0 for none.
        schedule: cosine, or step: times decay every decay_every steps.
        learning_rate: peak of the schedule.
        final_learning_rate: end of the cosine, and floor of the steps.
        warmup_steps: steps of linear warm-up.
        flat_steps: steps at the peak before the schedule begins.
        decay: factor of the step schedule.
        decay_every: steps between its decays.
        betas: moments of AdamW.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        ema: decay of the averaged weights, a step.
        loss: name in restorekit.losses.
        dtype: of autocast, float32 for none; float16 scales the loss.
        compile: whether torch.compile makes the training step.
        channels_last: whether convolutions keep channels innermost.
        tensorboard: whether the log goes to TensorBoard too (extra `train`).
        seed: of weights, crops and noise.
        validate_every: steps between validations and checkpoints.
        holdout: every how many pictures or pairs one is kept for validation.
        validation_sigma: noise of the validation, in 0-255 units, to denoise; not for pairs.
        validation_crop: side of the validation pictures.
        protocol: name in restorekit.metrics by which validation_data is measured.
        validation_data: folder of the protocol, in place of what is kept back; empty for none.
        max_minutes: wall-clock limit of the whole run, 0 for none.
        finish: whether the schedule ends with the limit; else the run stays resumable.
        licence: of the weights, for the card.
        data_note: of the training data, for the card.
    """

    task: str = "denoise"
    degradation: str = ""
    name: str = "kbnet_xs.custom"
    architecture: str = "kbnet_xs"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = ()
    pairs: bool = False
    run: str = "runs/train"
    cache: str = "runs/cache"
    start: str = ""
    steps: int = 20000
    batch_size: int = 16
    patch: int = 96
    progressive: tuple[tuple[int, int, int], ...] = ()
    accumulate: int = 1
    sigma: tuple[float, float] = (0.0, 75.0)
    mixup: bool = False
    workers: int = 0
    schedule: str = "cosine"
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_steps: int = 200
    flat_steps: int = 0
    decay: float = 0.5
    decay_every: int = 100000
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    loss: str = "l1"
    dtype: str = "bfloat16"
    compile: bool = False
    channels_last: bool = False
    tensorboard: bool = False
    seed: int = 0
    validate_every: int = 1000
    holdout: int = 60
    validation_sigma: tuple[float, ...] = (25.0, 50.0)
    validation_crop: int = 256
    protocol: str = ""
    validation_data: str = ""
    max_minutes: float = 0.0
    finish: bool = False
    licence: str = ""
    data_note: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without reading files."""
        if self.task not in TASKS:
            raise ConfigError(f"there is no task {self.task!r}; known: {', '.join(TASKS)}")
        task = TASKS[self.task]
        if self.degradation and self.degradation not in task.degradations:
            known = ", ".join(task.degradations)
            raise ConfigError(
                f"{task.name} has no degradation {self.degradation!r}; known: {known}"
            )
        for rule, (names, fits) in _RULES.items():
            for name in names:
                if not fits(getattr(self, name)):
                    raise ConfigError(f"{name} must be {rule}")
        if self.pairs and (self.degradation or self.sigma != TrainConfig.sigma):
            raise ConfigError("pairs bring their own noise; leave degradation and sigma out")
        if not task.draws_sigma(self.degradation) and self.sigma != TrainConfig.sigma:
            name = self.degradation or task.name
            raise ConfigError(f"{name} takes no sigma; leave it out")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}")
        if self.flat_steps >= self.total_steps:
            raise ConfigError("flat_steps must be fewer than the steps in all")
        if self.final_learning_rate > self.learning_rate:
            raise ConfigError("final_learning_rate must not be above learning_rate")
        if self.finish and not self.max_minutes:
            raise ConfigError("finish needs max_minutes")
        if self.protocol and getattr(PROTOCOLS.get(self.protocol), "task", "") != task.name:
            known = ", ".join(name for name, p in PROTOCOLS.items() if p.task == task.name)
            raise ConfigError(f"{task.name} has no protocol {self.protocol!r}; known: {known}")
        if self.validation_data and not self.protocol:
            raise ConfigError("validation_data needs a protocol to measure it by")
        criterion_by_name(self.loss)
        torch_dtype(self.dtype)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """Return rows of (steps, patch, batch size) in turn."""
        return self.progressive or ((self.steps, self.patch, self.batch_size),)

    @property
    def total_steps(self) -> int:
        """Return the optimiser steps of all stages."""
        return sum(steps for steps, _, _ in self.stages)

    def stage(self, step: int) -> tuple[int, int]:
        """Return the patch and the batch size of an optimiser step."""
        ends = itertools.accumulate(steps for steps, _, _ in self.stages)
        _, patch, batch_size = self.stages[sum(step >= end for end in list(ends)[:-1])]
        return patch, batch_size

    def samples_before(self, step: int) -> int:
        """Return how many pictures the optimiser has seen before a step."""
        seen = 0
        for steps, _, batch_size in self.stages:
            seen += min(step, steps) * batch_size
            step -= min(step, steps)
        return seen

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: optimiser step.
            progress: share of the schedule that is over, in [0, 1].
        """
        warmth = min(1.0, (step + 1) / max(1, self.warmup_steps))
        floor, peak = self.final_learning_rate, self.learning_rate
        flat = self.flat_steps / self.total_steps
        late = min(max(progress - flat, 0.0) / (1 - flat), 1.0)
        if self.schedule == "step":
            decays = int(late * (self.total_steps - self.flat_steps)) // self.decay_every
            return warmth * max(floor, peak * self.decay**decays)
        return warmth * (floor + (peak - floor) * (1 + math.cos(math.pi * late)) / 2)

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
        changes = changes or {}
        if values.get("progressive") and "steps" in changes and "progressive" not in changes:
            raise ConfigError(f"the stages of {path} (progressive) have steps of their own")
        return cls.from_values({**values, **changes})

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
                value = tuple(tuple(row) if isinstance(row, list) else row for row in value)
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            if default is not dataclasses.MISSING and type(value) is not type(default):
                raise ConfigError(
                    f"{name} of the recipe should be of type {type(default).__name__}"
                )
            if isinstance(default, tuple) and any(isinstance(item, float) for item in default):
                if not all(type(item) in (int, float) for item in value):
                    raise ConfigError(f"{name} of the recipe should hold numbers")
                value = tuple(float(item) for item in value)
            typed[name] = value
        return cls(**typed)
