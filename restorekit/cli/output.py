"""What the command line prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from restorekit.errors import OutputError

if TYPE_CHECKING:
    from restorekit.engine.restore import FileRecord

RecordFormat = Literal["human", "json", "ndjson"]

SOME_FAILED = 3
BROKEN_PIPE = 141


def plain(text: str) -> str:
    """Return the text on one line, with control characters of file names escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def say(message: str) -> None:
    """Write one line on stderr."""
    with suppress(OSError):  # nobody reads it, or the disk is full
        print(f"restorekit: {plain(message)}", file=sys.stderr, flush=True)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End quietly when nobody reads standard output any more.

    Raises:
        SystemExit: the reading end of the pipe is closed.
        OutputError: standard output cannot be written, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, and the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write one line of results, on stdout unless a stream is given."""
    with quiet_pipe():
        print(text, file=stream or sys.stdout, flush=True)


def write_json(value: Any) -> None:
    """Write one JSON value, indented, as a result."""
    write_line(json.dumps(value, indent=2, allow_nan=False))


class RecordWriter:
    """Write the record of each file in the chosen format and keep what the exit code needs.

    Human lines and ndjson lines come as files finish; a JSON array comes at the end.
    """

    def __init__(
        self, record_format: RecordFormat, *, quiet: bool, verbose: bool, on_stderr: bool
    ) -> None:
        """Write results on stdout, or on stderr where stdout carries a picture."""
        self._format = record_format
        self._quiet = quiet
        self._verbose = verbose
        self._on_stderr = on_stderr
        self._shows_lines = record_format == "human" and (verbose or not (quiet or on_stderr))
        self._records: list[FileRecord] = []

    def write(self, record: FileRecord) -> None:
        """Take one record."""
        self._records.append(record)
        if record.status == "failed":
            say(f"error: {record.error}")
        elif not self._quiet:
            for warning in record.warnings:
                say(f"warning: {record.input}: {warning}")
        if self._format == "ndjson":
            self._write(json.dumps(_json(record), allow_nan=False))
        elif self._shows_lines and record.status != "failed":
            self._write(_human(record, self._verbose))

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the array of a json run, even when the run was cut short."""
        if self._format == "json":
            records = [_json(record) for record in self._records]
            self._write(json.dumps(records, indent=2, allow_nan=False))

    def _write(self, text: str) -> None:
        # The streams are looked up each time, since a bar that is drawn replaces them.
        write_line(text, sys.stderr if self._on_stderr else sys.stdout)

    @property
    def exit_code(self) -> int:
        """Return 0, the one code that all failed files share, or 3."""
        return combined_exit_code([record.exit_code for record in self._records])


def combined_exit_code(codes: Sequence[int]) -> int:
    """Return 0 when every code is, the common code when all fail alike, else 3."""
    failed = {code for code in codes if code != 0}
    if not failed:
        return 0
    return failed.pop() if len(failed) == 1 and 0 not in codes else SOME_FAILED


def _json(record: FileRecord) -> dict[str, Any]:
    values = dataclasses.asdict(record)
    return values | {name: round(values[name], 3) for name in ("seconds", "seconds_model")}


def _human(record: FileRecord, verbose: bool) -> str:
    line = plain(f"{record.title} -> {record.output}")
    if record.status != "ok":
        line += f" ({record.status})"
    if verbose and record.model:
        details = [record.model, f"{record.device} {record.dtype}"]
        if record.denoised_by:
            details.append(f"denoised by {record.denoised_by}")
        if record.tile:
            details.append(f"tile {record.tile}")
        if record.noise is not None:
            numbers = record.noise if isinstance(record.noise, tuple) else (record.noise,)
            details.append("noise " + ",".join(f"{number:.3g}" for number in numbers))
        details += [*record.fallbacks, f"{record.seconds:.2f} s"]
        line += f" [{plain(', '.join(details))}]"
    return line
