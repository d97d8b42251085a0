"""The record of a training run: JSON lines, and TensorBoard where wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from restorekit.errors import ConfigError
from restorekit.io.atomic import atomic_path

LOG_FILE = "log.jsonl"


class TrainingLog:
    """Append one line a validation to a run folder."""

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        """Write into a folder that may not exist yet.

        Raises:
            ConfigError: TensorBoard is wanted and not installed.
        """
        self._folder = folder
        self._writer = _tensorboard(folder) if tensorboard else None

    def write(self, entry: Mapping[str, float], scores: Mapping[str, float]) -> None:
        """Append the numbers of a step, and the PSNR of its validation by noise level."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps({**entry, "psnr": scores}) + "\n")
        if self._writer is not None:
            for name, value in {**entry, **scores}.items():
                self._writer.add_scalar(name, value, int(entry["step"]))
            self._writer.flush()

    def cut(self, step: int) -> None:
        """Drop the lines that a killed run wrote after its last checkpoint, or cut off."""
        path = self._folder / LOG_FILE
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        with atomic_path(path) as part:
            part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step(line: str) -> float:
    """Return the step of a line, infinite where it is cut off."""
    with suppress(ValueError, KeyError, TypeError):
        return float(json.loads(line)["step"])
    return math.inf


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard is not installed: pip install 'restorekit[train]'"
        ) from error
    return SummaryWriter(str(folder))
