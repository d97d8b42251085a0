"""Merge bursts of files, one after another."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from restorekit import io
from restorekit.engine.burst import merge_burst
from restorekit.engine.device import choose_device, keep_freed_memory
from restorekit.engine.domain import default_model
from restorekit.engine.frames import Frame, check_frames, inspect_frame
from restorekit.engine.picture import RestoreOptions
from restorekit.engine.records import (
    FileRecord,
    OutputOptions,
    Targets,
    failed,
    noise_numbers,
)
from restorekit.engine.reporter import NamingReporter, Reporter
from restorekit.engine.stack import FrameReport
from restorekit.errors import DecodeError
from restorekit.hub import load_model
from restorekit.io.atomic import remove_stale
from restorekit.tasks import TASKS

SOME_FAILED = 3
_EIGHT_BITS = ("jpg", "webp")


@dataclass(frozen=True)
class BurstJob:
    """Name the frames of one burst and its output."""

    sources: tuple[Path, ...]
    target: Path


@dataclass(frozen=True)
class BurstRecord(FileRecord):
    """State what became of one burst; JSON values only, its input is the first frame.

    Attributes:
        frames: what became of each frame.
    """

    frames: tuple[FrameReport, ...] = ()

    @property
    def title(self) -> str:
        """Return what a person calls the input."""
        more = len(self.frames) - 1
        return f"{self.input} and {more} more" if more > 0 else self.input


def plan_bursts(jobs: Sequence[BurstJob], output: OutputOptions) -> Iterator[BurstRecord]:
    """Yield the record that each burst would have as far as names tell, and touch nothing."""
    targets = Targets((source for job in jobs for source in job.sources), output)
    for job in jobs:
        yield _no_burst(job, jobs) or targets.plan(_record(job, "planned"))


def merge_files(
    jobs: Sequence[BurstJob],
    options: RestoreOptions,
    output: OutputOptions,
    reporter: Reporter,
    *,
    bracket: bool = False,
) -> Generator[BurstRecord]:
    """Merge bursts and yield their records in order.

    All frames of a burst are read and checked before any work. A frame that cannot be read is left
    out where two others can be; the exit code says so. An error of one burst goes into its record
    and does not stop the others.

    Args:
        jobs: frames and outputs.
        options: how; its model is that for bursts.
        output: how pictures are written.
        reporter: told of the frames and tiles of each burst.
        bracket: whether exposures within a burst may differ.

    Raises:
        UnavailableError: a model or the device is not there.
        UsageError: the device has no such name.
    """
    choose_device(options.device)
    keep_freed_memory()
    model = load_model(options.model or TASKS["burst"].default_model)
    loaded = cache(load_model)
    targets = Targets((source for job in jobs for source in job.sources), output)
    for folder in {job.target.parent for job in jobs}:
        remove_stale(folder)

    def merge(job: BurstJob, reporter: Reporter) -> BurstRecord:
        target = targets.choose(job.target)
        if target is None:
            return _record(job, "skipped")
        if single := _no_burst(job, jobs):
            return single
        frames, unread = _inspected(job, options, reporter)
        check_frames(frames, bracket=bracket)
        chosen = io.check_format(frames[0].layout, output.format, target)
        from_camera = all(frame.from_camera for frame in frames)
        denoiser = loaded(
            default_model(TASKS["denoise"], frames[0].layout, from_camera=from_camera)
        )
        merged, report = merge_burst(frames, model, denoiser, options, reporter)
        if chosen in _EIGHT_BITS:
            merged = replace(merged, metadata=replace(merged.metadata, bit_depth=8))
        written, lost = targets.write(merged, job.target, target)
        if written is None:
            return _record(job, "skipped")
        everything = {frame.input: frame for frame in (*unread, *report.frames)}
        return replace(
            _record(job, "ok"),
            output=str(written),
            exit_code=SOME_FAILED if unread else 0,
            model=model.card.name,
            sha256=model.card.sha256,
            device=report.device,
            dtype=report.dtype,
            tile=report.tile,
            noise=noise_numbers(report.noise),
            fallbacks=report.fallbacks,
            seconds_model=report.seconds_model,
            warnings=(*_left_out(list(everything.values())), *report.warnings, *lost),
            frames=tuple(everything[str(source)] for source in job.sources),
        )

    for job in jobs:
        named = NamingReporter(reporter, str(job.sources[0])) if len(jobs) > 1 else reporter
        started = time.perf_counter()
        try:
            record = merge(job, named)
        except Exception as error:
            record = failed(_record(job, "failed"), error)
        yield replace(record, seconds=time.perf_counter() - started)


def _record(job: BurstJob, status: str) -> BurstRecord:
    frames = tuple(FrameReport(str(source), "unused") for source in job.sources)
    return BurstRecord(str(job.sources[0]), str(job.target), status=status, frames=frames)


def _no_burst(job: BurstJob, jobs: Sequence[BurstJob]) -> BurstRecord | None:
    """Return the record of a single frame among bursts, which is left as it is."""
    if len(job.sources) > 1 or len(jobs) == 1:
        return None
    return replace(_record(job, "skipped"), warnings=("a single frame, no burst",))


def _left_out(frames: Sequence[FrameReport]) -> Iterator[str]:
    """Yield a line for each frame without a part in the picture, and one if it is one frame's."""
    for frame in frames:
        if frame.status == "rejected":
            yield f"{frame.input} is left out: {frame.reason}"
        elif frame.status == "failed":
            yield f"left out: {frame.reason}"
    if all(frame.status != "merged" for frame in frames):
        yield "no other frame fits the sharpest, so that the result is that of a single frame"


def _inspected(
    job: BurstJob, options: RestoreOptions, reporter: Reporter
) -> tuple[list[Frame], list[FrameReport]]:
    """Return the frames of a burst, and reports of those that cannot be read."""
    frames: list[Frame] = []
    unread = []
    reporter.start(len(job.sources), "reading")
    try:
        for source in job.sources:
            try:
                load, like = partial(io.read_image, source), frames[0] if frames else None
                frames.append(inspect_frame(str(source), load, options.noise, like))
            except DecodeError as error:
                unread.append(FrameReport(str(source), "failed", reason=str(error)))
            reporter.advance()
    finally:
        reporter.finish()
    if unread and len(frames) < 2:
        raise DecodeError(
            f"{len(frames)} of {len(job.sources)} frames can be read, which makes no burst: "
            f"{unread[0].reason}"
        )
    return frames, unread
