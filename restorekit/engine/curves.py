"""Loss and validation PSNR of a training run over its steps, drawn to PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from restorekit.engine.drawing import Dot, Line, Shape, Text, paint
from restorekit.engine.plot import (
    BOTTOM,
    GRID,
    HEIGHT,
    INK,
    LEFT,
    RIGHT,
    SOFT,
    TOP,
    WIDTH,
    linear_ticks,
)
from restorekit.engine.training_log import LOG_FILE
from restorekit.errors import ConfigError, OutputError
from restorekit.io.atomic import atomic_path

CURVES_FILE = "curves.png"
_COLOURS = ("#c2410c", "#475f7a", "#4d7c0f", "#7e22ce", "#0e7490")
_LEGEND_STEP = 84
_Curve = list[tuple[float, float]]  # step, value


def draw_curves(run: Path) -> Path:
    """Draw the log of a run folder, one panel for the loss and one for the PSNR.

    Returns:
        The picture, curves.png in the run folder.

    Raises:
        ConfigError: the folder has no log, or the log is broken or empty.
        OutputError: the picture cannot be written.
    """
    losses, scores = _read_curves(run / LOG_FILE)
    name, last = run.absolute().name, max(step for step, _ in losses)
    panels = [list(_panel(f"{name}: training loss", "loss", {"": losses}, last, 4))]
    if scores:
        panels.append(list(_panel(f"{name}: validation PSNR", "PSNR (dB)", scores, last, 2)))
    picture = run / CURVES_FILE
    try:
        with atomic_path(picture) as part:
            paint(panels, WIDTH, HEIGHT).save(part, format="PNG")
    except OSError as error:
        raise OutputError(f"{picture}: cannot be written ({error.strerror})") from error
    return picture


def _read_curves(path: Path) -> tuple[_Curve, dict[str, _Curve]]:
    """Return the loss, and the PSNR by the name of its validation."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read; name the folder of a training run") from error
    losses: _Curve = []
    scores: dict[str, _Curve] = {}
    for number, line in enumerate(lines, 1):
        try:
            step, loss, psnr = _entry(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path}: line {number} is no entry of a training log") from error
        losses.append((step, loss))
        for name, value in psnr.items():
            scores.setdefault(name, []).append((step, value))
    if not losses:
        raise ConfigError(f"{path} has no entries yet; the first comes with the first validation")
    return losses, scores


def _entry(values: Any) -> tuple[float, float, dict[str, float]]:
    psnr = {name: float(value) for name, value in values["psnr"].items()}
    step, loss = float(values["step"]), float(values["loss"])
    if step <= 0 or not all(map(math.isfinite, (step, loss, *psnr.values()))):
        raise ValueError("no place for it in a drawing")
    return step, loss, psnr


def _panel(
    title: str, unit: str, curves: Mapping[str, _Curve], last: float, decimals: int
) -> Iterator[Shape]:
    values = [value for curve in curves.values() for _, value in curve]
    margin = 0.08 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
    low, high = min(values) - margin, max(values) + margin

    def across(step: float) -> float:
        return LEFT + step / last * (RIGHT - LEFT)

    def down(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    yield Text(14, 22, title, INK)
    yield Text(14, TOP - 12, unit, SOFT)
    yield Text(RIGHT, HEIGHT - 10, "steps", SOFT, "end")
    for label in linear_ticks(low, high):
        y = down(float(label))
        yield from (Line(LEFT, y, RIGHT, y, GRID), Text(LEFT - 8, y + 4, label, SOFT, "end"))
    for label in linear_ticks(0, last):
        x = across(float(label))
        yield from (Line(x, TOP, x, BOTTOM, GRID), Text(x, BOTTOM + 18, label, SOFT, "middle"))
    yield from (Line(LEFT, BOTTOM, RIGHT, BOTTOM, SOFT), Line(LEFT, TOP, LEFT, BOTTOM, SOFT))
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        if name:
            x = 19 + number * _LEGEND_STEP
            words = name.removeprefix("validation ")
            yield from (Dot(x, 38, colour), Text(x + 10, 42, words, SOFT))
        points = [(across(step), down(value)) for step, value in curve]
        yield from (Line(*start, *end, colour) for start, end in pairwise(points))
        yield Dot(*points[-1], colour)
        x, y = points[-1]
        yield Text(x, y - 9, f"{curve[-1][1]:.{decimals}f}", colour, "end")
