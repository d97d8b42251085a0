"""Train a network: one loop for one or many processes, resumable at every step.

Several processes (torchrun) each take their share of a batch; DistributedDataParallel averages
their gradients over gloo or NCCL. All randomness follows from the seed and the number of a sample,
so that a resumed run equals one that was never interrupted.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from restorekit.engine.device import keep_freed_memory
from restorekit.engine.processes import Processes, join_processes
from restorekit.engine.recipe import TrainConfig
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.engine.run_folder import (
    BEST_FOLDER,
    CHECKPOINT_FILE,
    alone_in,
    binding_settings,
    differences,
)
from restorekit.engine.training_data import training_pairs
from restorekit.engine.training_log import TrainingLog
from restorekit.engine.training_model import fresh_model, training_card
from restorekit.engine.validation import check_protocol, validation_scores
from restorekit.errors import ConfigError, RestorekitError
from restorekit.hub import ModelCard, save_model
from restorekit.io.atomic import atomic_path
from restorekit.losses import criterion_by_name
from restorekit.models.registry import (
    Batch,
    Criterion,
    RestorationModel,
    create_model,
    torch_dtype,
)


@dataclass(frozen=True)
class TrainResult:
    """Say how a run ended.

    Attributes:
        folder: run folder, a model by itself.
        steps: optimiser steps done.
        finished: whether the schedule reached its end.
        validation_psnr: last validation in dB by noise level.
    """

    folder: Path
    steps: int
    finished: bool
    validation_psnr: Mapping[str, float]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a network until its steps, its minutes or stop() end the run.

    Args:
        config: the recipe.
        resume: go on from the run folder's checkpoint where there is one.
        reporter: hears of the progress.
        stop: asked before every step whether to write a checkpoint and end.

    Raises:
        ConfigError: the recipe does not fit its data or its checkpoint.
        OutputError: the run folder cannot be made or written.
        RestorekitError: the loss is not finite.
    """
    keep_freed_memory()
    with join_processes() as processes:
        pieces = processes.count * config.accumulate
        if any(batch_size % pieces for _, _, batch_size in config.stages):
            raise ConfigError(f"batch sizes must be multiples of processes x accumulate, {pieces}")
        trainer = _Trainer(config, processes, reporter or SilentReporter())
        with alone_in(trainer.folder, processes):
            if resume and trainer.checkpoint.exists():
                trainer.load()
            elif trainer.checkpoint.exists():
                raise ConfigError(f"{config.run} holds a run already; --resume goes on with it")
            if trainer.log is not None:
                trainer.log.cut(trainer.step)
            return trainer.run(stop)


class _Objective(nn.Module):
    """Be the training loss as a module, so that one call passes through DDP and torch.compile."""

    def __init__(self, model: RestorationModel, criterion: Criterion) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(
        self,
        degraded: Tensor,
        clean: Tensor,
        noise_std: Tensor | None,
        white: Tensor | None,
        step: int,
    ) -> Tensor:
        return self.model.loss(Batch(degraded, clean, noise_std, white), self.criterion, step)


class _Trainer:
    """Hold the full state of a run."""

    def __init__(self, config: TrainConfig, processes: Processes, reporter: Reporter) -> None:
        self.config, self.processes, self.device = config, processes, processes.device
        self.reporter: Reporter = SilentReporter() if processes.rank else reporter
        self.folder = Path(config.run)
        self.checkpoint = self.folder / CHECKPOINT_FILE
        self.dtype = torch_dtype(config.dtype)
        check_protocol(config)
        self.model = fresh_model(config, self.reporter).to(self.device).train()
        self.pairs = training_pairs(config, self.model.spec, processes, self.reporter)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        objective: nn.Module = _Objective(self.model, criterion_by_name(config.loss))
        if config.compile:
            objective.compile()
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        self.parallel = None
        if processes.count > 1:
            self.parallel = DistributedDataParallel(objective, broadcast_buffers=False)
        self.objective = self.parallel or objective
        self.log = None if processes.rank else TrainingLog(self.folder, config.tensorboard)
        self.workers = ThreadPoolExecutor(config.workers) if config.workers else None
        self.coming: Future[list[Batch]] | None = None
        self.step, self.seconds, self.waiting = 0, 0.0, 0.0
        self.best = -math.inf
        self.scores: dict[str, float] = {}

    def load(self) -> None:
        """Take up the state of the run folder's checkpoint."""
        strange = f"{self.checkpoint} cannot be read; is it of another run?"
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged pickle may fail in any way
            raise ConfigError(strange) from error
        if not isinstance(state, dict) or self._state().keys() - state.keys():
            raise ConfigError(strange)
        if differing := differences(state["config"], self.config):
            raise ConfigError(
                f"{self.checkpoint} comes from a run with other settings: {'; '.join(differing)}"
            )
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.scores = state["best"], state["scores"]

    def _state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "config": binding_settings(self.config),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "scores": self.scores,
        }

    def _save(self) -> None:
        if not self.processes.rank:
            with atomic_path(self.checkpoint) as part:
                torch.save(self._state(), part)
            save_model(self._averaged_model(), self._card(), self.folder)
        self.processes.wait()

    def _averaged_model(self) -> RestorationModel:
        model = create_model(self.config.architecture, self.config.config)
        model.load_state_dict(self.average)
        return model.to(self.device).eval()

    def _card(self) -> ModelCard:
        return training_card(
            self.config,
            self.model,
            steps=self.step,
            minutes=self.seconds / 60,
            machine=f"{self.processes.count} x {self.device.type}",
            scores=self.scores,
        )

    def run(self, stop: Callable[[], bool]) -> TrainResult:
        """Train to the end of the schedule, of the time or of the caller's patience."""
        config = self.config
        started = time.monotonic() - self.seconds
        self.reporter.start(config.total_steps, f"training {config.name}")
        self.reporter.advance(self.step)
        losses, clock = list[Tensor](), time.monotonic()
        while self._progress() < 1 and not self.processes.any(stop() or self._out_of_time()):
            rate = config.rate(self.step, self._progress())
            losses.append(self._update(rate))
            self.step += 1
            self.seconds = self.processes.first(time.monotonic() - started)
            self.reporter.advance()
            if self.step % config.validate_every == 0 or self._progress() >= 1:
                spent = time.monotonic() - clock
                entry = {
                    "step": self.step,
                    "minutes": round(self.seconds / 60, 3),
                    "loss": float(torch.stack(losses).mean()),
                    "learning_rate": rate,
                    "pictures_per_second": round(self._seen(len(losses)) / spent, 1),
                    "loading": round(self.waiting / spent, 3),
                }
                self._validate_and_log(entry)
                self._save()
                losses, clock, self.waiting = [], time.monotonic(), 0.0
        self._save()
        self.reporter.finish()
        return TrainResult(self.folder, self.step, self._progress() >= 1, dict(self.scores))

    def _seen(self, steps: int) -> int:
        before = self.config.samples_before
        return before(self.step) - before(self.step - steps)

    def _update(self, rate: float) -> Tensor:
        """Take one optimiser step and return its loss."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batches = self._batches()
        total = torch.zeros((), device=self.device)
        for batch in batches:
            with self._gradients_stay(batch is not batches[-1]), self._precision():
                loss = self.objective(
                    batch.degraded, batch.clean, batch.noise_std, batch.white, self.step
                )
                loss = loss / config.accumulate
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        overflow = self.scaler.is_enabled() and not torch.isfinite(norm)
        if not torch.isfinite(total) or not (torch.isfinite(norm) or overflow):
            first = config.samples_before(self.step)
            raise RestorekitError(
                f"the loss or its gradient is not finite at step {self.step}, samples {first} to "
                f"{config.samples_before(self.step + 1) - 1}; lower learning_rate or set dtype to "
                "float32"
            )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1 - decay)
        return total

    def _batches(self) -> list[Batch]:
        """Return this process's pieces of the step's batch, and have the next ones prepared."""
        started = time.monotonic()
        pieces = self.coming.result() if self.coming is not None else self._prepare(self.step)
        if self.workers is not None and self.step + 1 < self.config.total_steps:
            self.coming = self.workers.submit(self._prepare, self.step + 1)
        self.waiting += time.monotonic() - started
        return [piece.to(self.device) for piece in pieces]

    def _prepare(self, step: int) -> list[Batch]:
        patch, batch_size = self.config.stage(step)
        share = batch_size // self.processes.count // self.config.accumulate
        first = (
            self.config.samples_before(step) + self.processes.rank * share * self.config.accumulate
        )
        starts = range(first, first + share * self.config.accumulate, share)
        return [self.pairs.batch(start, share, patch) for start in starts]

    def _gradients_stay(self, stay: bool) -> AbstractContextManager[None]:
        """Keep gradients in this process until the last piece of a batch."""
        return self.parallel.no_sync() if self.parallel is not None and stay else nullcontext()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def _progress(self) -> float:
        """Return how much of the schedule is over, 1 at its end."""
        steps = self.step / self.config.total_steps
        if not self.config.finish:
            return steps
        return max(steps, self.seconds / 60 / self.config.max_minutes)

    def _out_of_time(self) -> bool:
        limit = self.config.max_minutes
        return bool(limit) and self.seconds >= 60 * limit

    def _validate_and_log(self, entry: dict[str, float]) -> None:
        if self.log is None:
            return
        model = self._averaged_model()
        self.scores = validation_scores(
            model, self._card(), self.pairs, self.config, self._precision()
        )
        self.log.write(entry, self.scores)
        numbers = ", ".join(f"{value:.2f} dB" for value in self.scores.values())
        self.reporter.note(
            f"step {self.step}: loss {entry['loss']:.5f}, {numbers}, "
            f"{entry['pictures_per_second']:.0f} pictures/s"
        )
        mean = sum(self.scores.values()) / max(1, len(self.scores))
        if mean > self.best:
            self.best = mean
            save_model(model, self._card(), self.folder / BEST_FOLDER)
