"""The commands, and the exit code of every foreseen error."""

import errno
import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from restorekit import __version__
from restorekit.cli import models
from restorekit.cli.burst import burst
from restorekit.cli.evaluate import evaluate
from restorekit.cli.info import info
from restorekit.cli.inspect import inspect
from restorekit.cli.output import BROKEN_PIPE, say, write_line
from restorekit.cli.restore import examples, restore_command
from restorekit.cli.train import train
from restorekit.errors import OutputError, RestorekitError
from restorekit.tasks import TASKS

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


@app.callback(help=f"Restore photographs from the shell.\n\n{examples(TASKS['denoise'])}")
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
    if not task.burst:
        app.command(task.name)(restore_command(task))
app.command("burst")(burst)
app.command("info")(info)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("inspect")(inspect)
app.add_typer(models.app, name="models")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: words after the program's name; those of the process when None.

    Raises:
        SystemExit: a signal came, or nobody reads standard output any more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="restorekit", standalone_mode=False)
    except (RestorekitError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:
            say(f"error: {message}")
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"error: cannot write: {error.strerror}")
        return OutputError.exit_code
    except SystemExit as stop:
        if stop.code == 1:  # what rich makes of a broken pipe, as below a long help text
            return BROKEN_PIPE
        raise
    return code if isinstance(code, int) else 0
