"""Train a network: one loop for one or many processes, resumable at every checkpoint.

Several processes (torchrun) each take their share of a batch and average gradients over gloo or
NCCL. All randomness follows from the seed and the step, so that a resumed run equals one that was
never interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from restorekit.datasets import PictureCache, SyntheticPairs, find_pictures
from restorekit.degradations import gaussian_noise
from restorekit.engine.device import keep_freed_memory
from restorekit.engine.recipe import TrainConfig
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.errors import ConfigError, RestorekitError
from restorekit.hub import ModelCard, load_model, save_model
from restorekit.io.atomic import atomic_path
from restorekit.losses import criterion_by_name
from restorekit.metrics import psnr
from restorekit.models.registry import Batch, RestorationModel, create_model, torch_dtype
from restorekit.tasks import TASKS

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.jsonl"


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
        resume: go on from the run folder's checkpoint.
        reporter: hears of the progress.
        stop: asked before every step whether to write a checkpoint and end.

    Raises:
        ConfigError: the recipe does not fit its data or its checkpoint.
        RestorekitError: the loss is not finite.
    """
    keep_freed_memory()
    with _process_group() as (rank, processes):
        if config.batch_size % processes:
            raise ConfigError(f"batch_size must be a multiple of the {processes} processes")
        trainer = _Trainer(config, rank, processes, reporter or SilentReporter())
        if resume:
            trainer.load()
        elif rank == 0 and trainer.checkpoint.exists():
            raise ConfigError(f"{config.run} holds a run already; --resume goes on with it")
        return trainer.run(stop)


class _Trainer:
    """Hold the full state of a run."""

    def __init__(self, config: TrainConfig, rank: int, processes: int, reporter: Reporter) -> None:
        self.config, self.rank, self.processes = config, rank, processes
        self.reporter: Reporter = reporter if rank == 0 else SilentReporter()
        self.folder = Path(config.run)
        self.checkpoint = self.folder / CHECKPOINT_FILE
        self.device = (
            torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
        )
        self.pairs = self._pairs()
        self.model = self._fresh_model()
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.criterion = criterion_by_name(config.loss)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, float] = {}

    def _pairs(self) -> SyntheticPairs:
        paths = find_pictures([Path(folder) for folder in self.config.data])
        if self.rank > 0:
            dist.barrier()
        self.reporter.start(len(paths), "decoding pictures")
        cache = PictureCache.build(
            paths, Path(self.config.cache), lambda done, total: self.reporter.advance()
        )
        self.reporter.finish()
        if self.rank == 0 and self.processes > 1:
            dist.barrier()
        chosen = tuple(n for n in range(len(cache)) if n % self.config.holdout)
        if not chosen:
            raise ConfigError("too few pictures: none is left beside the validation")
        degrade = TASKS[self.config.task].degrade
        return SyntheticPairs(cache, chosen, degrade, self.config.patch, self.config.seed)

    def _fresh_model(self) -> RestorationModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = create_model(self.config.architecture, self.config.config)
        if self.config.start:
            start = load_model(self.config.start).model.state_dict()
            try:
                model.load_state_dict(start)
            except RuntimeError as error:
                raise ConfigError(f"{self.config.start} does not fit this architecture") from error
        return model.to(self.device).train()

    def load(self) -> None:
        """Take up the state of the run folder's checkpoint."""
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise ConfigError(f"{self.folder} has no checkpoint to resume") from error
        if state["config"] != self._schedule_settings():
            raise ConfigError(f"{self.checkpoint} comes from a run with other settings")
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        if self.rank == 0:
            self._cut_log()

    def _schedule_settings(self) -> str:
        """Return the settings that a resumed run must share, as JSON."""
        free = {"run", "cache", "data", "max_minutes", "finish", "licence", "data_note", "start"}
        settings = dataclasses.asdict(self.config)
        return json.dumps({k: v for k, v in settings.items() if k not in free}, sort_keys=True)

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "config": self._schedule_settings(),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "scores": self.scores,
        }
        with atomic_path(self.checkpoint) as part:
            torch.save(state, part)
        save_model(self._averaged_model(), self._card(), self.folder)

    def _averaged_model(self) -> RestorationModel:
        model = create_model(self.config.architecture, self.config.config)
        model.load_state_dict(self.average)
        return model.to(self.device).eval()

    def _card(self) -> ModelCard:
        config = self.config
        recipe = (
            f"AdamW {config.learning_rate:g}, cosine, {config.loss}, EMA {config.ema:g}, "
            f"{config.batch_size} patches of {config.patch}x{config.patch}, {config.dtype}, "
            f"{self.step} steps in {self.seconds / 60:.0f} minutes, seed {config.seed}"
        )
        return ModelCard(
            name=config.name,
            architecture=config.architecture,
            config=dict(self.model.config_values()),
            task=config.task,
            transfer="srgb",
            layout="rgb",
            licence=config.licence,
            data=config.data_note,
            recipe=recipe,
            scores=dict(self.scores),
        )

    def run(self, stop: Callable[[], bool]) -> TrainResult:
        """Train to the end of the schedule, of the time or of the caller's patience."""
        config = self.config
        started = time.monotonic() - self.seconds
        self.reporter.start(config.steps, f"training {config.name}")
        self.reporter.advance(self.step)
        running, clock = 0.0, time.monotonic()
        progress = self._progress()
        while progress < 1 and not self._agree(stop() or self._out_of_time()):
            rate = self._learning_rate(progress)
            loss = self._update(rate)
            self.step += 1
            running += loss
            self.seconds = self._shared(time.monotonic() - started)
            self.reporter.advance()
            progress = self._progress()
            if self.step % config.validate_every == 0 or progress >= 1:
                count = (self.step - 1) % config.validate_every + 1
                speed = count * config.batch_size / (time.monotonic() - clock)
                self._validate_and_log(running / count, rate, speed)
                self._save_on_first()
                running, clock = 0.0, time.monotonic()
        self._save_on_first()
        self.reporter.finish()
        return TrainResult(self.folder, self.step, progress >= 1, dict(self.scores))

    def _update(self, rate: float) -> float:
        config = self.config
        share = config.batch_size // self.processes
        batch = self.pairs.batch(self.step * config.batch_size + self.rank * share, share)
        batch = Batch(
            batch.degraded.to(self.device),
            batch.clean.to(self.device),
            None if batch.noise_std is None else batch.noise_std.to(self.device),
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        dtype = torch_dtype(config.dtype)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32):
            loss = self.model.loss(batch, self.criterion, self.step)
        torch.autograd.backward(loss)
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise RestorekitError(
                f"the loss or its gradient is not finite at step {self.step}; "
                f"lower learning_rate or set dtype to float32"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1 - decay)
        return value

    def _average_gradients(self) -> None:
        if self.processes == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.processes
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, piece in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def _progress(self) -> float:
        """Return how much of the schedule is over, 1 at its end."""
        steps = self.step / self.config.steps
        if not self.config.finish:
            return steps
        return max(steps, self.seconds / 60 / self.config.max_minutes)

    def _learning_rate(self, progress: float) -> float:
        config = self.config
        warmth = min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        floor = config.final_learning_rate
        return warmth * (floor + (config.learning_rate - floor) * cosine)

    def _out_of_time(self) -> bool:
        limit = self.config.max_minutes
        return bool(limit) and self.seconds >= 60 * limit

    def _shared(self, value: float) -> float:
        """Return process 0's value in every process."""
        if self.processes == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def _agree(self, end: bool) -> bool:
        """Return whether any process wants to end."""
        if self.processes == 1:
            return end
        tensor = torch.tensor([float(end)], device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item())

    def _save_on_first(self) -> None:
        if self.rank == 0:
            self._save()
        if self.processes > 1:
            dist.barrier()

    def _validate_and_log(self, loss: float, rate: float, speed: float) -> None:
        if self.rank:
            return
        self.scores = {
            f"validation sigma {sigma:g}": round(score, 4)
            for sigma, score in zip(self.config.validation_sigma, self._validate(), strict=True)
        }
        entry = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 3),
            "loss": loss,
            "learning_rate": rate,
            "pictures_per_second": round(speed, 1),
            "psnr": self.scores,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        numbers = ", ".join(f"{value:.2f} dB" for value in self.scores.values())
        self.reporter.note(f"step {self.step}: loss {loss:.5f}, {numbers}, {speed:.0f} pictures/s")

    def _validate(self) -> list[float]:
        """Return the mean PSNR over the held-out pictures for each noise level."""
        model, cache, side = self._averaged_model(), self.pairs.cache, self.config.validation_crop
        dtype = torch_dtype(self.config.dtype)
        scores = []
        for sigma in self.config.validation_sigma:
            total, count = 0.0, 0
            for number in range(0, len(cache), self.config.holdout):
                height, width = cache.shapes[number]
                h, w = min(side, height), min(side, width)
                crop = cache.crop(number, (height - h) // 2, (width - w) // 2, h, w)
                clean = crop.float()[None].div(255)
                generator = torch.Generator().manual_seed(number)
                std = torch.full((1, 1, 1, 1), sigma / 255)
                noisy = gaussian_noise(clean, std, generator).to(self.device)
                with (
                    torch.no_grad(),
                    torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32),
                ):
                    restored = model(noisy, std.to(self.device)).float().cpu()
                total, count = total + psnr(restored.clamp(0, 1), clean), count + 1
            scores.append(total / count)
        return scores

    def _cut_log(self) -> None:
        """Drop the lines that a killed run wrote after its last checkpoint."""
        path = self.folder / LOG_FILE
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        with atomic_path(path) as part:
            part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


@contextmanager
def _process_group() -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started; yield (rank, number of processes)."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), processes
    finally:
        dist.destroy_process_group()
