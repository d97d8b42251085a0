"""Measured rows as tables, beside the numbers that papers publish for the same pictures."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from restorekit.engine.evaluate import Evaluation, Row
from restorekit.engine.published import Published, published
from restorekit.engine.results import Result

_HEADINGS = (
    "sigma",
    "model",
    "params",
    "GMACs",
    "all GMACs",
    "s/MP",
    "PSNR",
    "SSIM",
    "MAE",
    "LPIPS",
)


@dataclass(frozen=True)
class Table:
    """Hold a table as text: headings, a line a row, and which lines are a paper's."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    is_published: tuple[bool, ...]


def table(evaluation: Evaluation) -> Table:
    """Return the rows as text for people; columns without any value are left out.

    Bursts have a column for each gain, as in the paper.
    """
    if evaluation.rows[0].gain is not None:
        return _burst_table(list(_rows(evaluation)))
    rows = list(_rows(evaluation))
    lines = [_cells(row) for row in rows]
    kept = [index for index in range(len(_HEADINGS)) if any(line[index] for line in lines)]
    return Table(
        tuple(_HEADINGS[index] for index in kept),
        tuple(tuple(line[index] for index in kept) for line in lines),
        tuple(isinstance(row, Published) for row in rows),
    )


def _rows(evaluation: Evaluation) -> Iterator[Row | Published]:
    """Yield the measured rows of each noise level, and below them the published ones."""
    for (sigma, gain), rows in groupby(evaluation.rows, key=lambda row: (row.sigma, row.gain)):
        measured = list(rows)
        yield from measured
        yield from published(measured[0].protocol, measured[0].data, sigma, gain)


def _burst_table(rows: Sequence[Row | Published]) -> Table:
    gains = sorted({row.gain for row in rows if row.gain is not None})
    firsts = [row for row in rows if row.gain == gains[0]]
    lines = []
    for first in sorted(firsts, key=lambda row: isinstance(row, Published)):
        _, name, parameters, layers, _, _, *_ = _cells(first)
        found = [row for row in rows if (row.model, type(row)) == (first.model, type(first))]
        scores = [f"{row.psnr:.2f} / {row.ssim:.4f}" for row in found]
        lines.append((name, parameters, layers, *scores))
    return Table(
        ("model", "params", "GMACs", *(f"gain {gain}: PSNR / SSIM" for gain in gains)),
        tuple(lines),
        tuple(line[0].endswith(" (published)") for line in lines),
    )


def _cells(row: Row | Published) -> tuple[str, ...]:
    if isinstance(row, Published):
        name = f"{row.model} (published)"
        ends = _number(row.psnr, ".2f"), "", "", ""
        return _number(row.sigma, "g"), name, "", _number(row.gmacs, "g"), "", "", *ends
    return (
        _number(row.sigma, "g"),
        row.model,
        _number(row.parameters, ".2f", 1e6) + ("" if row.parameters is None else " M"),
        _number(row.macs_layers, ".2f", 1e9),
        _number(row.macs, ".2f", 1e9),
        _number(row.seconds_per_megapixel, ".2f"),
        _number(row.psnr, ".2f"),
        _number(row.ssim, ".4f"),
        _number(row.mae, ".4f"),
        _number(row.lpips, ".4f"),
    )


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)


def markdown(shown: Table) -> str:
    """Return a table in Markdown."""
    rule = tuple("---" if heading == "model" else "---:" for heading in shown.headings)
    lines = (shown.headings, rule, *shown.lines)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines
    )


def rows_csv(evaluation: Evaluation) -> str:
    """Return the rows as CSV in full precision; the column `published` marks those of a paper."""
    columns = [f.name for f in dataclasses.fields(Row)]
    lines: list[dict[str, Any]] = []
    first = evaluation.rows[0]
    for row in _rows(evaluation):
        values = dataclasses.asdict(row)
        if isinstance(row, Published):
            gmacs = values.pop("gmacs")
            values["macs_layers"] = None if gmacs is None else round(gmacs * 1e9)
            values |= {"protocol": first.protocol, "data": first.data}
        lines.append(values | {"published": isinstance(row, Published)})
    return _csv([*columns, "published"], lines)


def results_csv(results: Sequence[Result]) -> str:
    """Return the results of single pictures as CSV in full precision."""
    columns = [f.name for f in dataclasses.fields(Result)]
    return _csv(columns, (dataclasses.asdict(result) for result in results))


def _csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def json_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the measured rows as JSON values, each with the published PSNR by model.

    LPIPS is left out where it was not measured; an infinite PSNR is null.
    """
    objects = []
    for row in evaluation.rows:
        values = dataclasses.asdict(row)
        if row.lpips is None:
            del values["lpips"]
        if math.isinf(row.psnr):
            values["psnr"] = None
        known = published(row.protocol, row.data, row.sigma, row.gain)
        objects.append(values | {"published": {each.model: each.psnr for each in known}})
    return objects
