"""The entry point: commands, signals, and the exit code of every error."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer

from restorekit import __version__
from restorekit.cli import models
from restorekit.cli.evaluate import evaluate
from restorekit.cli.info import info
from restorekit.cli.output import say, write_line
from restorekit.cli.restore import examples, restore_command
from restorekit.cli.train import train
from restorekit.errors import RestorekitError
from restorekit.tasks import TASKS

SIGNALS = (signal.SIGINT, signal.SIGTERM)

app = typer.Typer(
    name="restorekit",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"restorekit {__version__}")
        raise typer.Exit


@app.callback(help=f"Restore photographs from the shell.\n\n{examples('denoise')}")
def restorekit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options before the verb."""


for task in TASKS.values():
    app.command(task.name)(restore_command(task))
app.command("info")(info)
app.command("train")(train)
app.command("eval")(evaluate)
app.add_typer(models.app, name="models")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    Args:
        arguments: words after the program's name; those of the process when None.

    Raises:
        SystemExit: always.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _signals_exit():
        sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        code = app(arguments, prog_name="restorekit", standalone_mode=False)
    except (RestorekitError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:
            say(f"error: {message}")
        return error.exit_code
    except Exception as error:
        if os.environ.get("RESTOREKIT_DEBUG") == "1":
            traceback.print_exc()
        say(
            f"internal error: {type(error).__name__}: {error}; "
            "please report it with what RESTOREKIT_DEBUG=1 prints"
        )
        return 1
    return code if isinstance(code, int) else 0


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into SystemExit, so that every clean-up runs on the way out."""
    received = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            say("interrupted")
            # Again, in case that a library caught the first one and raised something else.
            raise SystemExit(128 + received[0])
