"""One run of a restoring command: which inputs become which outputs, and the doing of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from restorekit.cli.inputs import (
    Source,
    find_sources,
    not_there,
    nothing_there,
    passed_over,
    spool,
)
from restorekit.cli.output import RecordWriter, quiet_pipe, say
from restorekit.cli.targets import (
    Destination,
    parse_destination,
    picture_format,
    plan_targets,
    suffix_for,
)
from restorekit.errors import NoInputError, OutputError, UsageError

if TYPE_CHECKING:
    from restorekit.engine.reporter import Reporter
    from restorekit.engine.restore import FileRecord, Job, OutputOptions, RestoreOptions
    from restorekit.tasks import Task

STREAM = "-"


@dataclass(frozen=True)
class Work:
    """Say which inputs become which outputs.

    Attributes:
        sources: the inputs.
        targets: their outputs.
        missing: words that name nothing.
        picture_format: format of every output, or None to follow its suffix.
        from_stdin: whether the one source is a copy of standard input.
        to_stdout: whether the one target is on its way to standard output.
    """

    sources: Sequence[Source]
    targets: Sequence[Path]
    missing: Sequence[str]
    picture_format: str | None
    from_stdin: bool
    to_stdout: bool

    def plan(self, output: OutputOptions, writer: RecordWriter) -> None:
        """Write the record that each input would have, and touch nothing."""
        from restorekit.engine.restore import plan_files

        for record in self._records(plan_files(self._jobs(), output)):
            writer.write(self._named(record))

    def run(
        self,
        task: Task,
        options: RestoreOptions,
        output: OutputOptions,
        writer: RecordWriter,
        reporter: Reporter,
        compare: Path | None = None,
    ) -> None:
        """Restore every input and write its record.

        Args:
            task: what to do.
            options: how pictures are restored.
            output: how they are written.
            writer: of the records.
            reporter: of the progress.
            compare: where to show the one picture before and after.

        Raises:
            RestorekitError: no file can be restored, as without a model.
        """
        from restorekit.engine.restore import restore_files

        jobs = self._jobs()
        reporter.start(len(jobs), "files")
        with closing(restore_files(jobs, task, options, output, reporter)) as finished:
            for record in self._records(finished):
                done = record.status == "ok"
                if done and self.to_stdout:
                    _pour(Path(record.output))
                writer.write(self._named(record))
                if done and compare and not (output.on_exist == "skip" and compare.exists()):
                    from restorekit.engine.compare import write_comparison

                    write_comparison(
                        Path(record.input),
                        Path(record.output),
                        compare,
                        options.crop,
                        output.strip,
                        overwrite=output.on_exist == "overwrite",
                    )
                reporter.advance()
        reporter.finish()

    def _jobs(self) -> list[Job]:
        from restorekit.engine.restore import Job

        return [Job(s.path, t) for s, t in zip(self.sources, self.targets, strict=True)]

    def _records(self, found: Iterator[FileRecord]) -> Iterator[FileRecord]:
        from restorekit.engine.restore import FileRecord

        for word in self.missing:
            error = not_there([word])
            yield FileRecord(word, "", status="failed", exit_code=error.exit_code, error=str(error))
        yield from found

    def _named(self, record: FileRecord) -> FileRecord:
        """Return the record with the names that the user knows, where a pipe was copied."""
        error = record.error
        if self.from_stdin and error is not None:
            error = error.replace(record.input, "standard input")
        return replace(
            record,
            input=STREAM if self.from_stdin else record.input,
            output=STREAM if self.to_stdout else record.output,
            error=error,
        )


def _pour(path: Path) -> None:
    """Send a file on to standard output."""
    with path.open("rb") as file, quiet_pipe():
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def find_work(
    words: Sequence[str],
    output: str | None,
    *,
    recursive: bool,
    chosen: str | None,
    task: str,
    quiet: bool,
    pipe_folder: Callable[[], Path],
) -> Work:
    """Turn the words of the command line into inputs and outputs.

    Args:
        words: inputs as typed.
        output: -o as typed.
        recursive: whether folders are walked.
        chosen: picture format of --to.
        task: name of the task.
        quiet: whether pictures that are passed over go unsaid.
        pipe_folder: makes a folder for a picture of a pipe, which lasts as long as the run.

    Raises:
        UsageError: the words contradict each other.
        NoInputError: nothing matched, or standard input is closed.
        OutputError: standard output is closed.
    """
    from_stdin = STREAM in words
    to_stdout = output == STREAM or (from_stdin and output is None)
    if from_stdin and len(words) > 1:
        raise UsageError("- reads one picture from standard input and takes no other input")
    if from_stdin and sys.stdin is None:
        raise NoInputError("standard input is closed")
    if to_stdout and sys.stdout is None:
        raise OutputError("standard output is closed")
    if to_stdout and sys.stdout.isatty():
        raise UsageError("a picture is not for the terminal; give -o FILE or pipe it on")
    destination = parse_destination(None if to_stdout else output)
    missing: list[str] = []
    if from_stdin:
        sources = [spool(sys.stdin.buffer, pipe_folder())]
    else:
        sources, missing, passed = find_sources(
            words, recursive=recursive, task=task, kept_out=destination.folder
        )
        if not sources:
            raise not_there(missing) if missing else nothing_there(words, passed)
        if passed and not quiet:
            say(f"warning: passed over {passed_over(passed)}")
    if to_stdout:
        if len(sources) > 1:
            raise UsageError(f"standard output takes one picture, not {len(sources)}")
        name = f"stdout{suffix_for(sources[0].path, chosen)}"
        destination = Destination(file=pipe_folder() / name)
    return Work(
        sources=sources,
        targets=plan_targets(sources, destination, task=task, chosen=chosen),
        missing=missing,
        picture_format=picture_format(destination, chosen),
        from_stdin=from_stdin,
        to_stdout=to_stdout,
    )
