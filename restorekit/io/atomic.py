"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.([0-9a-f]{6})\.part")
_LONGEST_NAME = 255

_in_use: set[Path] = set()


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside a file, and put what is written there in its place at the end.

    The bytes are on the disk before the file takes its name. After any exception, KeyboardInterrupt
    included, the temporary file is gone and the old file, if there was one, is as it was.

    Args:
        path: file to write; its folder must exist.
        overwrite: whether an old file goes.

    Raises:
        FileExistsError: there is a file that stays, also one that appeared in the meantime.
    """
    part = path.with_name(part_name(path.name, os.getpid()))
    place = _resolved(part)
    _in_use.add(place)
    try:
        yield part
        _flush(part, os.O_RDWR)
        if overwrite:
            os.replace(part, path)
        else:
            _take_name(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    finally:
        _in_use.discard(place)
    with suppress(OSError):  # some file systems cannot flush a folder
        _flush(path.parent, os.O_RDONLY)


def remove_stale(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Remove the temporary files that dead processes left in a folder, and return their paths.

    Those of other hosts, which may share the folder, stay. Of the files with the number of this
    process, only those that it is writing are alive: in a container every process has that number.
    """
    removed = []
    for part in folder.rglob(".*.part") if recursive else folder.glob(".*.part"):
        match = _PART.fullmatch(part.name)
        if match and match[2] == _host() and not _is_written(part, int(match[1])):
            with suppress(OSError):
                part.unlink()
                removed.append(part)
    return removed


def part_name(name: str, process: int) -> str:
    """Return the name of the temporary file that a process of this host writes.

    Args:
        name: of the file to be; cut where the name would be longer than file systems take.
        process: number of the process.
    """
    end = f".{process}.{_host()}.part"
    room = _LONGEST_NAME - len(end) - 1
    if len(os.fsencode(name)) > room:
        name = os.fsencode(name)[:room].decode("utf-8", "ignore")
    return f".{name}{end}"


def _take_name(part: Path, path: Path) -> None:
    """Give a temporary file its name unless that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(part, path)
    else:
        part.unlink()


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _host() -> str:
    """Return six digits that tell this host from others."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _resolved(part: Path) -> Path:
    return part.parent.resolve() / part.name


def _is_written(part: Path, process: int) -> bool:
    if process == os.getpid():
        return _resolved(part) in _in_use
    if os.name == "nt":  # there kill ends the process, but a file that is open cannot be removed
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
