"""Restore many files, with decoding and encoding in threads around the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from restorekit import io
from restorekit.engine.device import choose_device, is_out_of_memory, keep_freed_memory
from restorekit.engine.picture import RestoreOptions, RestoreReport, restore_image
from restorekit.engine.reporter import NamingReporter, Reporter
from restorekit.errors import MemoryExhaustedError, OutputError, RestorekitError
from restorekit.hub import LoadedModel, bundled_cards, load_model
from restorekit.image import Image, Layout, NoiseProfile
from restorekit.io import raw
from restorekit.io.atomic import remove_stale
from restorekit.tasks import Task

__all__ = [
    "FileRecord",
    "Job",
    "OutputOptions",
    "RestoreOptions",
    "RestoreReport",
    "plan_files",
    "restore_files",
    "restore_image",
]


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
    warnings: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class _Work:
    """Carry a file from stage to stage; one without image has its final record."""

    job: Job
    record: FileRecord
    image: Image | None = None


def plan_files(jobs: Sequence[Job], output: OutputOptions) -> Iterator[FileRecord]:
    """Yield the record that each file would have as far as its names tell, and touch nothing."""
    targets = _Targets(jobs, output.on_exist)
    for job in jobs:
        record = FileRecord(str(job.source), str(job.target), status="planned")
        try:
            target = targets.choose(job)
        except OutputError as error:
            yield _failed(record, error)
        else:
            named = replace(record, status="skipped")
            yield named if target is None else replace(record, output=str(target))


def restore_files(
    jobs: Sequence[Job],
    task: Task,
    options: RestoreOptions,
    output: OutputOptions,
    reporter: Reporter,
) -> Generator[FileRecord]:
    """Restore files one by one and yield their records in order.

    While the network works on a picture, one thread reads the next and another writes the last.
    An error of one file goes into its record and does not stop the others. When the run is
    interrupted, the record of a file that is being written comes before the interruption.

    Args:
        jobs: inputs and outputs.
        task: names the models.
        options: how pictures are restored.
        output: how they are written.
        reporter: told of the tiles of each picture.

    Raises:
        UnavailableError: the model or the device is not there.
        UsageError: the device has no such name.
    """
    choose_device(options.device)
    keep_freed_memory()
    run = _Run(jobs, task, options, output, reporter)
    for folder in {job.target.parent for job in jobs}:
        remove_stale(folder)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming: Future[_Work] | None = reader.submit(run.read, jobs[0]) if jobs else None
        leaving: Future[FileRecord] | None = None
        following = iter(jobs[1:])
        try:
            while coming is not None:
                work = coming.result()
                job = next(following, None)
                coming = reader.submit(run.read, job) if job else None
                if leaving is not None and leaving.done():
                    record, leaving = leaving.result(), None
                    yield record
                work = run.restore(work)
                if leaving is not None:
                    record, leaving = leaving.result(), None
                    yield record
                leaving = writer.submit(run.write, work)
                del work
        finally:
            if leaving is not None:
                yield leaving.result()


class _Run:
    """Hold what all files of a run share."""

    def __init__(
        self,
        jobs: Sequence[Job],
        task: Task,
        options: RestoreOptions,
        output: OutputOptions,
        reporter: Reporter,
    ) -> None:
        """Load the model of the run."""
        self._task, self._options, self._output = task, options, output
        self._reporter, self._many = reporter, len(jobs) > 1
        self._targets = _Targets(jobs, output.on_exist)
        self._models: dict[str, LoadedModel] = {}
        self._load(options.model or task.default_model)

    def _load(self, reference: str) -> LoadedModel:
        if reference not in self._models:
            self._models[reference] = load_model(reference)
        return self._models[reference]

    def _model_for(self, image: Image) -> LoadedModel:
        """Return the chosen model, or the task's own for colour or, where bundled, for grey."""
        gray = self._task.default_gray_model
        if self._options.model is None and image.layout is Layout.GRAY and gray in bundled_cards():
            return self._load(gray)
        return self._load(self._options.model or self._task.default_model)

    def read(self, job: Job) -> _Work:
        """Choose the output and read the input."""
        work = _Work(job, FileRecord(str(job.source), str(job.target)))

        def read() -> _Work:
            target = self._targets.choose(job)
            if target is None:
                return replace(work, record=replace(work.record, status="skipped"))
            image = io.read_image(job.source)
            io.check_format(image, self._output.format, target)
            return _Work(
                replace(job, target=target),
                replace(work.record, output=str(target), warnings=image.metadata.warnings),
                image,
            )

        return _guarded(work, read)

    def restore(self, work: _Work) -> _Work:
        """Restore the picture that was read."""
        image = work.image
        if image is None:
            return work

        def restore() -> _Work:
            model = self._model_for(image)
            reporter = self._reporter
            if self._many:
                reporter = NamingReporter(reporter, work.record.input)
            restored, report = restore_image(image, model, self._options, reporter)
            record = replace(
                work.record,
                model=model.card.name,
                sha256=model.card.sha256,
                device=report.device,
                dtype=report.dtype,
                tile=report.tile,
                noise=_numbers(report.noise),
                fallbacks=report.fallbacks,
                seconds_model=report.seconds_model,
                warnings=(*work.record.warnings, *report.warnings),
            )
            return replace(work, record=record, image=restored)

        return _guarded(work, restore)

    def write(self, work: _Work) -> FileRecord:
        """Write the restored picture and return the final record."""
        image = work.image
        if image is None:
            return work.record

        def write() -> _Work:
            warnings = io.write_image(
                self._finished(image),
                work.job.target,
                format=self._output.format,
                strip=self._output.strip,
                quality=self._output.quality,
            )
            record = replace(work.record, warnings=(*work.record.warnings, *warnings))
            return replace(work, record=record)

        return _guarded(work, write).record

    def _finished(self, image: Image) -> Image:
        """Return the picture to write: of a mosaic with a crop, the developed crop."""
        if self._options.crop is None or image.layout is not Layout.BAYER:
            return image
        return raw.develop(image).crop(*self._options.crop)


class _Targets:
    """Choose the output of each file among the paths that are not spoken for."""

    def __init__(self, jobs: Sequence[Job], on_exist: str) -> None:
        """Keep every input safe."""
        self._on_exist = on_exist
        self._sources = {_identity(job.source) for job in jobs}
        self._taken: set[Path] = set()

    def choose(self, job: Job) -> Path | None:
        """Return where to write, or None to skip the file.

        Raises:
            OutputError: the output is an input, exists, or belongs to another file of this run.
        """
        target = job.target
        if self._on_exist == "rename":
            number = 0
            while target.exists() or target.resolve() in self._taken:
                number += 1
                target = job.target.with_stem(f"{job.target.stem}_{number}")
        if _identity(target) in self._sources:
            raise OutputError(f"{target} is an input and is never written over; name another -o")
        if target.resolve() in self._taken:
            raise OutputError(f"{target} is the output of another input too; name another -o")
        if target.exists() and self._on_exist == "skip":
            return None
        if target.exists() and self._on_exist == "error":
            raise OutputError(f"{target} exists; choose --on-exist skip, overwrite or rename")
        self._taken.add(target.resolve())
        return target


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what two names of one file have in common."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def _numbers(noise: float | NoiseProfile | None) -> float | tuple[float, float] | None:
    return (noise.shot, noise.read) if isinstance(noise, NoiseProfile) else noise


def _guarded(work: _Work, stage: Callable[[], _Work]) -> _Work:
    """Run a stage, count its time, and turn an error into a failed record."""
    started = time.perf_counter()
    try:
        done = stage()
    except Exception as error:
        done = _Work(work.job, _failed(work.record, error))
    seconds = done.record.seconds + time.perf_counter() - started
    return replace(done, record=replace(done.record, seconds=seconds))


def _failed(record: FileRecord, error: Exception) -> FileRecord:
    if is_out_of_memory(error):
        error = MemoryExhaustedError("memory ran out; close other programs")
    if isinstance(error, RestorekitError):
        message, code = str(error), error.exit_code
    else:
        message, code = f"internal error: {type(error).__name__}: {error}", 1
    if record.input not in message:
        message = f"{record.input}: {message}"
    line = " ".join(message.split())
    return replace(record, status="failed", exit_code=code, error=line)
