import json
from typing import Any, NamedTuple


class Result(NamedTuple):
    """Hold what a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the lines on stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]
