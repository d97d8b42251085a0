"""What a run is given, where its outputs go, and the record of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from restorekit import io
from restorekit.engine.device import is_out_of_memory
from restorekit.engine.domain import Noise
from restorekit.errors import (
    MemoryExhaustedError,
    OutputError,
    OutputExistsError,
    RestorekitError,
    unforeseen,
)
from restorekit.image import Image, NoiseProfile
from restorekit.ops.noise_curve import NoiseCurve


@dataclass(frozen=True)
class Job:
    """Name one input file and its output."""

    source: Path
    target: Path


@dataclass(frozen=True)
class OutputOptions:
    """Say how outputs are written.

    Attributes:
        format: png, jpg, tiff, webp, dng or cfa-dng; None to follow the suffix of the output.
        strip: metadata to leave out: none, gps or all.
        quality: of JPEG and WebP, 1..100.
        on_exist: error, skip, overwrite or rename.
    """

    format: str | None = None
    strip: str = "none"
    quality: int = 95
    on_exist: str = "error"


@dataclass(frozen=True)
class FileRecord:
    """State what became of one input file; JSON values only.

    Attributes:
        input: path of the input.
        output: path of the output.
        status: ok, skipped, failed, or planned in a dry run.
        exit_code: that of the error, or 0.
        error: one line, or None.
        model: name of the model.
        sha256: of its weights.
        device: where the network ran.
        dtype: precision of its inner values.
        tile: largest side of a tile.
        noise: what the network was told: the deviation in steps of 0..255, or shot and read of a
            RAW picture; None for a network that is not told.
        fallbacks: what had to give way, in plain words.
        seconds: time spent on this file, reading and writing included.
        seconds_model: time of it in the network and its tiles.
        denoised_by: model that denoised the picture, or the mosaic of a RAW one, before the model
            did its work; the noise is what it was told.
        psf: picture of the known blur that was undone, with the model as prior.
        warnings: what the user should know.
        version: of this record's shape.
    """

    input: str
    output: str
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None
    model: str | None = None
    sha256: str | None = None
    device: str | None = None
    dtype: str | None = None
    tile: int | None = None
    noise: float | tuple[float, float] | None = None
    fallbacks: tuple[str, ...] = ()
    seconds: float = 0.0
    seconds_model: float = 0.0
    denoised_by: str | None = None
    psf: str | None = None
    warnings: tuple[str, ...] = ()
    version: int = 1

    @property
    def title(self) -> str:
        """Return what a person calls the input."""
        return self.input


Record = TypeVar("Record", bound=FileRecord)


class Targets:
    """Choose the output of each file among the paths that are not spoken for."""

    def __init__(self, sources: Iterable[Path], output: OutputOptions) -> None:
        """Keep every input safe."""
        self._output = output
        self._sources = {_identity(source) for source in sources}
        self._taken: set[Path] = set()

    def choose(self, wanted: Path) -> Path | None:
        """Return where to write what was to go to a path, or None to skip it.

        Raises:
            OutputError: the output is an input, exists, or belongs to another file of this run.
        """
        target = wanted
        if self._output.on_exist == "rename":
            number = 0
            while os.path.lexists(target) or target.resolve() in self._taken:
                number += 1
                target = wanted.with_stem(f"{wanted.stem}_{number}")
        if _identity(target) in self._sources:
            raise OutputError(f"{target} is an input and is never written over; name another -o")
        if target.resolve() in self._taken:
            raise OutputError(f"{target} is the output of another input too; name another -o")
        if os.path.lexists(target) and self._output.on_exist == "skip":
            return None
        if os.path.lexists(target) and self._output.on_exist == "error":
            raise OutputError(f"{target} exists; choose --on-exist skip, overwrite or rename")
        self._taken.add(target.resolve())
        return target

    def write(self, image: Image, wanted: Path, target: Path) -> tuple[Path | None, list[str]]:
        """Write a picture to its target, and return where and what the file could not hold.

        Where another process has written the target in the meantime, it is chosen again, and the
        file is None if that skips it.

        Raises:
            OutputError: the file exists and stays, or cannot be written.
        """
        chosen: Path | None = target
        while chosen is not None:
            try:
                return chosen, io.write_image(
                    image,
                    chosen,
                    format=self._output.format,
                    strip=self._output.strip,
                    quality=self._output.quality,
                    overwrite=self._output.on_exist == "overwrite",
                )
            except OutputExistsError:
                self._taken.discard(chosen.resolve())
                chosen = self.choose(wanted)
        return None, []

    def plan(self, record: Record) -> Record:
        """Return the record that an input would have as far as names tell."""
        try:
            target = self.choose(Path(record.output))
        except OutputError as error:
            return failed(record, error)
        if target is None:
            return replace(record, status="skipped")
        return replace(record, output=str(target))


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what two names of one file have in common."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def noise_numbers(noise: Noise) -> float | tuple[float, float] | None:
    """Return a noise as a record states it, that by brightness as it is in the whole picture."""
    if isinstance(noise, NoiseCurve):
        return 255 * noise.overall
    return (noise.shot, noise.read) if isinstance(noise, NoiseProfile) else noise


def failed(record: Record, error: Exception) -> Record:
    """Return the record of a file that an error ended."""
    if is_out_of_memory(error):
        error = MemoryExhaustedError("memory ran out; close other programs")
    if isinstance(error, RestorekitError):
        message, code = str(error), error.exit_code
    else:
        message, code = unforeseen(error), 1
    if record.input not in message:
        message = f"{record.input}: {message}"
    line = " ".join(message.split())
    return replace(record, status="failed", exit_code=code, error=line)
