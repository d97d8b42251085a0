"""The entry point: signals first, then the commands, whose libraries take a while to import."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    Args:
        arguments: words after the program's name; those of the process when None.

    Raises:
        SystemExit: always.
    """
    if sys.stderr is None:  # closed by the shell
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        with _signals_exit():
            from restorekit.cli.app import run

            code = run(arguments)
    except Exception as error:
        _report(error)
        code = 1
    sys.exit(code)


def _report(error: Exception) -> None:
    from restorekit.cli.output import say
    from restorekit.errors import unforeseen

    if os.environ.get("RESTOREKIT_DEBUG") == "1":
        traceback.print_exc()
    say(unforeseen(error))


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Turn signals into SystemExit, so that every clean-up runs on the way out."""
    received: list[int] = []

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
            with suppress(OSError):  # a terminal that hung up
                print("restorekit: interrupted", file=sys.stderr, flush=True)
            # Again, in case that a library caught the first one and raised something else.
            raise SystemExit(128 + received[0])
