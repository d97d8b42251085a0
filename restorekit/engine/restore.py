"""Restore many files, with decoding and encoding in threads around the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from restorekit import io
from restorekit.engine.deconvolve import deconvolve
from restorekit.engine.developed import NOISY, restore_denoised, restore_developed
from restorekit.engine.device import choose_device, keep_freed_memory
from restorekit.engine.domain import default_model, finished_noise_of
from restorekit.engine.picture import RestoreOptions, RestoreReport, check_finite, restore_image
from restorekit.engine.psf import read_psf
from restorekit.engine.records import (
    FileRecord,
    Job,
    OutputOptions,
    Targets,
    failed,
    noise_numbers,
)
from restorekit.engine.reporter import NamingReporter, Reporter
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout
from restorekit.io import raw
from restorekit.io.atomic import remove_stale
from restorekit.ops.finished_noise import FinishedNoise
from restorekit.tasks import TASKS, Task

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
class _Work:
    """Carry a file from stage to stage; one without image has its final record."""

    job: Job
    record: FileRecord
    image: Image | None = None


def plan_files(jobs: Sequence[Job], output: OutputOptions) -> Iterator[FileRecord]:
    """Yield the record that each file would have as far as its names tell, and touch nothing."""
    targets = Targets((job.source for job in jobs), output)
    for job in jobs:
        yield targets.plan(FileRecord(str(job.source), str(job.target), status="planned"))


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
        UsageError: the device has no such name, the psf is none, or the model is for bursts.
        DecodeError: the psf cannot be read.
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
        """Load the model of the run, and its psf."""
        self._task, self._options, self._output = task, options, output
        self._reporter, self._many = reporter, len(jobs) > 1
        inputs = [job.source for job in jobs]
        self._targets = Targets(inputs if options.psf is None else [*inputs, options.psf], output)
        self._models: dict[str, LoadedModel] = {}
        self._psf = None if options.psf is None else read_psf(options.psf)
        denoise = TASKS["denoise"]
        self._default = task.default_model if self._psf is None else denoise.default_model
        chosen = self._load(options.model or self._default)
        if chosen.model.spec.frames > 1:
            raise UsageError(f"{chosen.card.name} is a model for bursts; see restorekit burst")
        self._warnings: tuple[str, ...] = ()
        if self._psf is None and chosen.card.task != task.name:
            learnt = f"{chosen.card.name} was trained to {chosen.card.task}, not to {task.name}"
            self._warnings = (learnt,)

    def _load(self, reference: str) -> LoadedModel:
        if reference not in self._models:
            self._models[reference] = load_model(reference)
        return self._models[reference]

    def _model_for(self, image: Image) -> LoadedModel:
        """Return the chosen model, or the task's own that fits the noise of the picture."""
        if self._options.model is not None or self._psf is not None:
            return self._load(self._options.model or self._default)
        from_camera = False
        measured = self._options.noise is None and image.layout is not Layout.BAYER
        if self._task.default_photo_model is not None and measured:
            from_camera = _noise_of(image).from_camera
        return self._load(default_model(self._task, image.layout, from_camera=from_camera))

    def read(self, job: Job) -> _Work:
        """Choose the output and read the input."""
        work = _Work(job, FileRecord(str(job.source), str(job.target)))

        def read() -> _Work:
            target = self._targets.choose(job.target)
            if target is None:
                return replace(work, record=replace(work.record, status="skipped"))
            image = io.read_image(job.source)
            io.check_format(image.layout, self._output.format, target)
            return _Work(
                job,
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
            restored, report = self._restored(image, model, reporter)
            record = replace(
                work.record,
                model=model.card.name,
                sha256=model.card.sha256,
                device=report.device,
                dtype=report.dtype,
                tile=report.tile,
                noise=noise_numbers(report.noise),
                fallbacks=report.fallbacks,
                seconds_model=report.seconds_model,
                denoised_by=report.denoised_by,
                psf=None if self._options.psf is None else str(self._options.psf),
                warnings=(*work.record.warnings, *self._warnings, *report.warnings),
            )
            return replace(work, record=record, image=restored)

        return _guarded(work, restore)

    def _restored(
        self, image: Image, model: LoadedModel, reporter: Reporter
    ) -> tuple[Image, RestoreReport]:
        options, denoise = self._options, TASKS["denoise"]

        def restore(image: Image, options: RestoreOptions) -> tuple[Image, RestoreReport]:
            if self._psf is None:
                return restore_image(image, model, options, reporter)
            return deconvolve(image, self._psf, model, options, reporter)

        if image.layout is Layout.BAYER and not self._task.takes_mosaics:
            denoiser = None
            if options.denoise:
                denoiser = self._load(default_model(denoise, image.layout))
            return restore_developed(image, denoiser, restore, options, reporter)
        if self._task.takes_noise_level or self._psf is not None or not options.denoise:
            return restore(image, options)
        if options.noise is not None or (noise := _noise_of(image)).fine < NOISY:
            return restore(image, options)
        own = default_model(denoise, image.layout, from_camera=noise.from_camera)
        denoiser = self._load(own)
        return restore_denoised(image, denoiser, restore, options, reporter)

    def write(self, work: _Work) -> FileRecord:
        """Write the restored picture and return the final record."""
        image = work.image
        if image is None:
            return work.record

        def write() -> _Work:
            target = Path(work.record.output)
            written, lost = self._targets.write(self._finished(image), work.job.target, target)
            if written is None:
                return replace(work, record=replace(work.record, status="skipped"))
            warnings = (*work.record.warnings, *lost)
            record = replace(work.record, output=str(written), warnings=warnings)
            return replace(work, record=record)

        return _guarded(work, write).record

    def _finished(self, image: Image) -> Image:
        """Return the picture to write: of a mosaic with a crop, the developed crop."""
        if self._options.crop is None or image.layout is not Layout.BAYER:
            return image
        return raw.develop(image).crop(*self._options.crop)


def _noise_of(image: Image) -> FinishedNoise:
    """Return the noise of a finished picture.

    Raises:
        DecodeError: it holds infinite values or no numbers.
    """
    check_finite(image)
    return finished_noise_of(image)


def _guarded(work: _Work, stage: Callable[[], _Work]) -> _Work:
    """Run a stage, count its time, and turn an error into a failed record."""
    started = time.perf_counter()
    try:
        done = stage()
    except Exception as error:
        done = _Work(work.job, failed(work.record, error))
    seconds = done.record.seconds + time.perf_counter() - started
    return replace(done, record=replace(done.record, seconds=seconds))
