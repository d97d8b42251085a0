"""The folder of a training run: whose it is, and which runs go on in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from restorekit.engine.processes import Processes
from restorekit.engine.recipe import TrainConfig
from restorekit.errors import ConfigError, OutputError

CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = "run.lock"
BEST_FOLDER = "best"


@contextmanager
def alone_in(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep other trainings out of a run folder, which also ends when this one is killed."""
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    taken = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not processes.rank:
            lock.acquire()
    except Timeout:
        taken = True
    except OSError as error:
        raise OutputError(
            f"{folder} cannot hold a run ({error.strerror}); name another -o"
        ) from error
    if processes.any(taken):
        raise ConfigError(f"{folder}: another training is writing there; stop it first")
    try:
        yield
    finally:
        lock.release()


def binding_settings(config: TrainConfig) -> str:
    """Return the settings that a resumed run must share, as JSON."""
    free = {"run", "cache", "data", "max_minutes", "finish", "licence", "data_note", "start"}
    free |= {"workers", "tensorboard", "compile", "protocol", "validation_data"}
    settings = dataclasses.asdict(config)
    return json.dumps({k: v for k, v in settings.items() if k not in free}, sort_keys=True)


def differences(settings: str, config: TrainConfig) -> list[str]:
    """Say which binding settings of a checkpoint differ; younger ones have their defaults there."""
    ours = json.loads(binding_settings(config))
    theirs = {**json.loads(binding_settings(TrainConfig())), **json.loads(settings)}
    return [
        f"{name} {theirs[name]} there, {ours.get(name)} here"
        for name in theirs
        if theirs[name] != ours.get(name)
    ]
