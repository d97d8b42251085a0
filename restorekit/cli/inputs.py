"""Words of the command line into sources: files, folders, patterns and standard input."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from restorekit.errors import NoInputError, OutputError, UsageError

SIGNATURES: dict[bytes, str] = {
    rb"\x89PNG": ".png",
    rb"\xff\xd8\xff": ".jpg",
    rb"RIFF....WEBP": ".webp",
    rb"II\*\0|MM\0\*": ".tif",
    rb"FUJIFILMCCD-": ".raf",
    rb"....ftypcrx ": ".cr3",
    rb"....ftypavi[fs]": ".avif",
    rb"IIRO|IIRS|MMOR": ".orf",
    rb"IIU\0": ".rw2",
}
"""First bytes of the formats that a pipe may carry; RAW files of the TIFF family pass as TIFF."""


@dataclass(frozen=True)
class Source:
    """Name one input file.

    Attributes:
        path: the file.
        place: its path below the folder or pattern that it was found by, mirrored below -o.
    """

    path: Path
    place: Path


def find_sources(
    words: Sequence[str], *, recursive: bool, task: str, kept_out: Path | None
) -> tuple[list[Source], list[str], Counter[str]]:
    """Expand files, folders and quoted patterns into the pictures they stand for.

    A walk passes over hidden files, files that are no pictures, outputs of an earlier run that
    lie beside their inputs, and the output folder. A file that is named twice is taken once, under
    a name that is no link where it has one.

    Args:
        words: arguments as typed.
        recursive: whether folders below a folder are walked.
        task: name of the task, which marks the outputs of earlier runs.
        kept_out: folder that is not walked, because the outputs go there.

    Returns:
        The sources in order, the words that name nothing and folders that cannot be read, and how
        many pictures of each format that is not supported were passed over.

    Raises:
        UsageError: a word is empty.
    """
    if "" in words:
        raise UsageError("an input is an empty word, as of an unset shell variable; name a file")
    sources: dict[Path, Source] = {}
    missing: list[str] = []
    passed: Counter[str] = Counter()
    for word in words:
        before = passed.total()
        found = list(_expand(word, recursive, task, kept_out, missing, passed))
        if not found and passed.total() == before and not os.path.exists(word):
            missing.append(word)
        for source in found:
            real = source.path.resolve()
            first = sources.setdefault(real, source)
            if first.path.is_symlink() and not source.path.is_symlink():
                sources[real] = source
    return list(sources.values()), missing, passed


def passed_over(passed: Counter[str]) -> str:
    """Return what to say of pictures that find_sources passed over."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(passed.items()))
    return (
        f"pictures of formats that are not supported ({counts}); convert them to PNG or TIFF first"
    )


def nothing_there(words: Sequence[str], passed: Counter[str]) -> NoInputError:
    """Return the error of arguments that name no picture."""
    named = ", ".join(words)
    if passed:
        return NoInputError(f"{named}: only {passed_over(passed)}")
    return NoInputError(f"{named}: no picture there; -r walks the folders below a folder too")


def not_there(words: Sequence[str]) -> NoInputError:
    """Return the error of words that find_sources could not follow."""
    unread = [word for word in words if os.path.isdir(word)]
    reason = "this folder cannot be read" if unread else "no such file"
    return NoInputError(f"{', '.join(unread or words)}: {reason}")


def _expand(
    word: str,
    recursive: bool,
    task: str,
    kept_out: Path | None,
    unread: list[str],
    passed: Counter[str],
) -> Iterator[Source]:
    path = Path(word)
    if os.path.isdir(path):
        yield from _walk(path, path, recursive, task, kept_out, unread, passed)
    elif os.path.exists(path):
        yield Source(path, Path(path.name))
    elif glob.has_magic(word):
        base = _fixed_part(path)
        if kept_out is not None and _lies_in(base, kept_out):
            kept_out = None
        names = cache(os.listdir)
        for match in map(Path, sorted(glob.glob(word, recursive=True))):
            if kept_out is not None and _lies_in(match, kept_out):
                continue
            if os.path.isdir(match):
                # '**' has already matched the files below.
                if "**" not in word:
                    yield from _walk(match, base, recursive, task, kept_out, unread, passed)
            elif _is_input(match, names(match.parent), task, passed):
                yield Source(match, match.relative_to(base))


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _walk(
    folder: Path,
    base: Path,
    recursive: bool,
    task: str,
    kept_out: Path | None,
    unread: list[str],
    passed: Counter[str],
) -> Iterator[Source]:
    def note(error: OSError) -> None:
        unread.append(str(error.filename))

    real_kept_out = kept_out.resolve() if kept_out is not None else None
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        here = Path(parent)
        real = here.resolve()
        if real in seen or (real == real_kept_out and here != folder):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        names = set(files)
        for name in sorted(files):
            if _is_input(here / name, names, task, passed):
                yield Source(here / name, (here / name).relative_to(base))


def _is_input(path: Path, neighbours: Collection[str], task: str, passed: Counter[str]) -> bool:
    """Say whether a walk takes a file, and count it where only its format is in the way."""
    from restorekit.io import UNREAD_SUFFIXES, is_image_path

    unread = UNREAD_SUFFIXES.get(path.suffix.lower())
    if path.name.startswith(".") or not (unread or is_image_path(path)) or not path.is_file():
        return False
    if unread:
        passed[unread] += 1
        return False
    return not _is_earlier_output(path, neighbours, task)


def _is_earlier_output(path: Path, neighbours: Collection[str], task: str) -> bool:
    match = re.fullmatch(rf"(.+)_{re.escape(task)}(?:_\d+)?", path.stem, re.DOTALL)
    return match is not None and any(
        match[1] in (Path(name).stem, stem_with_suffix(Path(name))) for name in neighbours
    )


def _fixed_part(pattern: Path) -> Path:
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def stem_with_suffix(path: Path) -> str:
    """Return a.dng as a_dng, which tells inputs of one stem apart."""
    return f"{path.stem}_{path.suffix[1:]}"


@contextmanager
def temporary_space() -> Iterator[None]:
    """Name the remedy where no temporary files can be written.

    Raises:
        OutputError: there is no such place, or it is full.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the picture of the pipe cannot be kept for the run ({error.strerror}); "
            "set TMPDIR to a folder that has room"
        ) from error


def spool(stream: BinaryIO, folder: Path) -> Source:
    """Copy a picture from a stream into a folder, under the suffix that its first bytes tell.

    Raises:
        OutputError: the folder has no room for it.
    """
    path = folder / "stdin"
    with temporary_space(), path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    with path.open("rb") as file:
        head = file.read(12)
    for signature, suffix in SIGNATURES.items():
        if re.match(signature, head, re.DOTALL):
            path = path.rename(path.with_suffix(suffix))
    return Source(path, Path(path.name))
