"""How the command line shows progress: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from restorekit.cli.output import say
from restorekit.engine.reporter import Reporter, SilentReporter


class PlainReporter(SilentReporter):
    """Write notes as lines on stderr; the record of each file is its progress."""

    def note(self, message: str) -> None:
        """Write one line."""
        say(message)


class BarReporter:
    """Draw a bar for each piece of work, the inner below the outer."""

    def __init__(self, progress: Progress) -> None:
        """Draw on a display that is running."""
        self._progress = progress
        self._running: list[TaskID] = []

    def start(self, total: int, description: str) -> None:
        """Add a bar of so many steps."""
        self._running.append(self._progress.add_task(description, total=total))

    def advance(self, amount: int = 1) -> None:
        """Move the innermost bar."""
        if self._running:
            self._progress.advance(self._running[-1], amount)

    def note(self, message: str) -> None:
        """Write one line above the bars."""
        say(message)

    def finish(self) -> None:
        """Remove the innermost bar."""
        if self._running:
            self._progress.remove_task(self._running.pop())


@contextmanager
def reporting(*, quiet: bool) -> Iterator[Reporter]:
    """Give the reporter that suits stderr, and clear its display at the end."""
    if quiet:
        yield SilentReporter()
    elif not sys.stderr.isatty():
        yield PlainReporter()
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        ) as progress:
            yield BarReporter(progress)
