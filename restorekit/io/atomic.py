"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.part")
_LONGEST_NAME = 255


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and put what is written there in its place at the end.

    The bytes are on the disk before the file takes its name. After any exception, KeyboardInterrupt
    included, the temporary file is gone and the old file, if there was one, is as it was.

    Args:
        path: file to write; its folder must exist.
    """
    part = path.with_name(_part_name(path.name))
    try:
        yield part
        _flush(part, os.O_RDWR)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    with suppress(OSError):  # some file systems cannot flush a folder
        _flush(path.parent, os.O_RDONLY)


def remove_stale(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Remove the temporary files that dead processes left in a folder, and return their paths."""
    removed = []
    for part in folder.rglob(".*.part") if recursive else folder.glob(".*.part"):
        match = _PART.fullmatch(part.name)
        if match and not _is_alive(int(match[1])):
            with suppress(OSError):
                part.unlink()
                removed.append(part)
    return removed


def _part_name(name: str) -> str:
    """Return the name of a temporary file, cut to what file systems take."""
    end = f".{os.getpid()}.part"
    room = _LONGEST_NAME - len(end) - 1
    if len(os.fsencode(name)) > room:
        name = os.fsencode(name)[:room].decode("utf-8", "ignore")
    return f".{name}{end}"


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there kill ends the process, but a file that is open cannot be removed
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
