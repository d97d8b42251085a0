"""PSNR against MACs, drawn as in the papers' first figures, to SVG or PNG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path

from restorekit.engine.drawing import DOT, TEXT, Dot, Line, Shape, Text, paint, svg
from restorekit.engine.evaluate import Evaluation, Row
from restorekit.engine.published import published
from restorekit.errors import OutputError, UsageError
from restorekit.io.atomic import atomic_path

WIDTH, HEIGHT = 440, 320
LEFT, TOP, RIGHT, BOTTOM = 52, 76, WIDTH - 20, HEIGHT - 48
INK, SOFT, GRID, MEASURED, PUBLISHED = "#22262b", "#6b7280", "#e5e7eb", "#c2410c", "#475f7a"
_PLACES = (
    (9, 4, "start"),
    (-9, 4, "end"),
    (0, -9, "middle"),
    (0, 18, "middle"),
    (9, 15, "start"),
    (-9, 15, "end"),
    (9, -8, "start"),
    (-9, -8, "end"),
    (0, -22, "middle"),
    (0, 31, "middle"),
)
_Box = tuple[float, float, float, float]
_Point = tuple[str, float, float, str]  # name, GMACs, PSNR, colour


def plot(evaluation: Evaluation, path: Path) -> None:
    """Draw a panel for each noise level, MACs in layers on a logarithmic axis.

    Raises:
        UsageError: the suffix is neither .svg nor .png, or a level has no row with MACs.
        OutputError: the file cannot be written.
    """
    check_suffix(path)
    panels = []
    for (sigma, gain), rows in groupby(evaluation.rows, key=lambda row: (row.sigma, row.gain)):
        measured = list(rows)
        points = list(_points(measured))
        if not points:
            raise UsageError(f"{path}: nothing to draw; only a --model has MACs")
        noise = "" if sigma is None else f", sigma {sigma:g}"
        noise += "" if gain is None else f", gain {gain}"
        title = f"{measured[0].data}, {measured[0].protocol}{noise}"
        panels.append(list(_panel(title, points)))
    try:
        with atomic_path(path) as part:
            if path.suffix.lower() == ".svg":
                part.write_text(svg(panels, WIDTH, HEIGHT), encoding="utf-8")
            else:
                paint(panels, WIDTH, HEIGHT).save(part, format="PNG")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def check_suffix(path: Path) -> None:
    """Refuse a plot of another format.

    Raises:
        UsageError: the path ends in neither .svg nor .png.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"{path}: a plot is written as .svg or .png")


def _points(rows: list[Row]) -> Iterator[_Point]:
    for row in rows:
        if row.macs_layers and math.isfinite(row.psnr):
            yield row.model, row.macs_layers / 1e9, row.psnr, MEASURED
    for known in published(rows[0].protocol, rows[0].data, rows[0].sigma):
        if known.gmacs is not None:
            yield known.model, known.gmacs, known.psnr, PUBLISHED


def _panel(title: str, points: list[_Point]) -> Iterator[Shape]:
    decades = [math.log10(gmacs) for _, gmacs, _, _ in points]
    levels = [level for _, _, level, _ in points]
    first, last = min(decades) - 0.3, max(decades) + 0.3
    margin = max(0.2 * (max(levels) - min(levels)), 0.1)
    low, high = min(levels) - margin, max(levels) + margin

    def across(gmacs: float) -> float:
        return LEFT + (math.log10(gmacs) - first) / (last - first) * (RIGHT - LEFT)

    def down(level: float) -> float:
        return BOTTOM - (level - low) / (high - low) * (BOTTOM - TOP)

    yield Text(14, 22, title, INK)
    present = {colour for *_, colour in points}
    for x, words, colour in ((19, "measured", MEASURED), (99, "published", PUBLISHED)):
        if colour not in present:
            continue
        yield from (Dot(x, 38, colour), Text(x + 10, 42, words, SOFT))
    yield Text(14, TOP - 12, "PSNR (dB)", SOFT)
    yield Text(RIGHT, HEIGHT - 10, "GMACs in layers, 256 x 256", SOFT, "end")
    for label in linear_ticks(low, high):
        y = down(float(label))
        yield from (Line(LEFT, y, RIGHT, y, GRID), Text(LEFT - 8, y + 4, label, SOFT, "end"))
    for gmacs in _log_ticks(first, last):
        yield Line(across(gmacs), TOP, across(gmacs), BOTTOM, GRID)
        yield Text(across(gmacs), BOTTOM + 18, f"{gmacs:g}", SOFT, "middle")
    yield from (Line(LEFT, BOTTOM, RIGHT, BOTTOM, SOFT), Line(LEFT, TOP, LEFT, BOTTOM, SOFT))
    dots = [Dot(across(gmacs), down(level), colour) for _, gmacs, level, colour in points]
    yield from dots
    yield from _names([name for name, *_ in points], dots)


def _names(names: list[str], dots: list[Dot]) -> Iterator[Text]:
    """Place each name beside its dot where it covers no dot and no other name, if it can."""
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y, _ in dots]
    for name, dot in zip(names, dots, strict=True):
        texts = [Text(dot.x + x, dot.y + y, name, dot.colour, side) for x, y, side in _PLACES]
        free = (text for text in texts if _is_free(_box(text), taken))
        text = next(free, texts[0])
        taken.append(_box(text))
        yield text


def _box(text: Text) -> _Box:
    wide = 0.56 * TEXT * len(text.words)
    left = text.x - wide * {"start": 0, "middle": 0.5, "end": 1}[text.anchor]
    return left, text.y - 0.8 * TEXT, left + wide, text.y + 0.2 * TEXT


def _is_free(box: _Box, taken: list[_Box]) -> bool:
    left, top, right, bottom = box
    if left < LEFT or right > RIGHT or top < TOP or bottom > BOTTOM:
        return False
    return not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in taken
    )


def linear_ticks(low: float, high: float) -> list[str]:
    """Return round numbers between two others as labels, three to six of them."""
    third = (high - low) / 3
    power = math.floor(math.log10(third))
    step = next(m * 10.0**power for m in (5, 2, 1) if m * 10.0**power <= third)
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [f"{number * step:.{max(-power, 0)}f}" for number in numbers]


def _log_ticks(first: float, last: float) -> list[float]:
    every = product(range(math.floor(first), math.ceil(last)), (1, 2, 5))
    return [m * 10.0**d for d, m in every if first <= d + math.log10(m) <= last]
