"""How a loop tells the outside world how far it is."""

from typing import Protocol


class Reporter(Protocol):
    """Receive progress; silent by default, drawn by the command line."""

    def start(self, total: int, description: str) -> None:
        """Begin a piece of work of so many steps."""

    def advance(self, amount: int = 1) -> None:
        """Count finished steps."""

    def note(self, message: str) -> None:
        """Say one line that the user should read."""

    def finish(self) -> None:
        """End the piece of work."""


class NamingReporter:
    """Pass everything on, with the name of a file before every line that is said."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        """Pass on to a reporter."""
        self._reporter = reporter
        self._name = name

    def start(self, total: int, description: str) -> None:
        """Pass on the start."""
        self._reporter.start(total, description)

    def advance(self, amount: int = 1) -> None:
        """Pass on the steps."""
        self._reporter.advance(amount)

    def note(self, message: str) -> None:
        """Pass on the line, named."""
        self._reporter.note(f"{self._name}: {message}")

    def finish(self) -> None:
        """Pass on the end."""
        self._reporter.finish()


class SilentReporter:
    """Say nothing."""

    def start(self, total: int, description: str) -> None:
        """Ignore the start."""

    def advance(self, amount: int = 1) -> None:
        """Ignore the steps."""

    def note(self, message: str) -> None:
        """Ignore the line."""

    def finish(self) -> None:
        """Ignore the end."""
