"""Where outputs go: what -o and --to say, and one distinct path for every input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restorekit.cli.inputs import Source, stem_with_suffix
from restorekit.errors import OutputError, UsageError

SUFFIXES: dict[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "dng": (".dng",),
    "cfa-dng": (".dng",),
}
"""Suffixes of each picture format that can be written; the first is used for new names."""


@dataclass(frozen=True)
class Destination:
    """Say where outputs go: into one file, into a folder, or, with neither, beside the inputs."""

    file: Path | None = None
    folder: Path | None = None


def parse_destination(word: str | None) -> Destination:
    """Return what -o means; an existing folder or a name without suffix or with / is a folder.

    Raises:
        UsageError: the suffix of the file is of no format that can be written.
        OutputError: the folder is a file.
    """
    if word is None:
        return Destination()
    path = Path(word)
    if os.path.isdir(path) or not path.suffix or word.endswith(("/", os.sep)):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise OutputError(f"{path} is no folder; name a folder, or a file such as out.png")
        return Destination(folder=path)
    if not _formats_of(path):
        known = " ".join(sorted({suffix for group in SUFFIXES.values() for suffix in group}))
        raise UsageError(
            f"{path}: cannot write {path.suffix}; use one of {known}, or end a folder's name with /"
        )
    return Destination(file=path)


def picture_format(destination: Destination, chosen: str | None) -> str | None:
    """Return the picture format that -o or --to asks for, or None to follow each input.

    Raises:
        UsageError: the two contradict each other.
    """
    if destination.file is None:
        return chosen
    formats = _formats_of(destination.file)
    if chosen is not None and chosen not in formats:
        raise UsageError(f"{destination.file} is no name for --to {chosen}; leave out one of them")
    return chosen or formats[0]


def _formats_of(path: Path) -> list[str]:
    return [name for name, group in SUFFIXES.items() if path.suffix.lower() in group]


def suffix_for(source: Path, chosen: str | None) -> str:
    """Return the suffix of the output: of --to, of the input where it can be written, or .png.

    A RAW file becomes a 16-bit .tif.
    """
    from restorekit.io import is_raw_path

    if chosen is not None:
        return SUFFIXES[chosen][0]
    if is_raw_path(source):
        return ".tif"
    return source.suffix if _formats_of(source) else ".png"


def plan_targets(
    sources: Sequence[Source], destination: Destination, *, task: str, chosen: str | None
) -> list[Path]:
    """Return one output path a source, all different and none an input.

    Beside the inputs, and in a destination that is the folder of the input, the output is
    {stem}_{task}{suffix}; below another folder it keeps its place and name. Inputs that would
    share an output, as a.dng and a.tif do, have their suffix added to the stem.

    Args:
        sources: the inputs.
        destination: what -o says.
        task: name of the task.
        chosen: picture format of --to.

    Raises:
        UsageError: two inputs have the same output, an output is an input, or one file name
            was given for several inputs.
    """
    if destination.file is not None:
        if len(sources) > 1:
            raise UsageError(f"{destination.file} is one file for {len(sources)} inputs")
        targets = [destination.file for _ in sources]
    else:
        targets = [_target(s, s.path.stem, destination, task, chosen) for s in sources]
        counts = Counter(targets)
        targets = [
            target
            if counts[target] == 1
            else _target(source, stem_with_suffix(source.path), destination, task, chosen)
            for source, target in zip(sources, targets, strict=True)
        ]
    _refuse_clashes(sources, targets)
    return targets


def _target(
    source: Source, stem: str, destination: Destination, task: str, chosen: str | None
) -> Path:
    folder = source.path.parent
    if destination.folder is not None:
        folder = destination.folder / source.place.parent
    if folder.resolve() == source.path.parent.resolve():
        stem = f"{stem}_{task}"
    return folder / f"{stem}{suffix_for(source.path, chosen)}"


def _refuse_clashes(sources: Sequence[Source], targets: Sequence[Path]) -> None:
    inputs = {source.path.resolve() for source in sources}
    owner: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        real = target.resolve()
        if real in inputs:
            raise UsageError(f"{target} is an input and is never written over; choose another -o")
        other = owner.setdefault(real, source.path)
        if other != source.path:
            raise UsageError(
                f"{other} and {source.path} would both become {target}; "
                "give the folder above them with -r, or run them one by one"
            )
