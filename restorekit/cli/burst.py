"""The command `burst`: many frames become one picture."""

from typing import Annotated, Literal

import typer

from restorekit.cli.inputs import find_sources, not_there, nothing_there, passed_over
from restorekit.cli.options import (
    NOISE_HELP,
    NOISE_METAVAR,
    Device,
    DryRun,
    Dtype,
    Offline,
    OnExist,
    Quality,
    Quiet,
    Records,
    Recursive,
    Strip,
    Tile,
    To,
    Verbose,
    model_option,
    noise_level,
    parse_noise,
    prepare,
)
from restorekit.cli.output import RecordWriter, say
from restorekit.cli.progress import reporting
from restorekit.cli.targets import parse_destination, picture_format, plan_targets
from restorekit.cli.work import STREAM
from restorekit.errors import UsageError
from restorekit.tasks import TASKS

TASK = TASKS["burst"]


def burst(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FRAME",
            show_default=False,
            help="Files, folders, or quoted patterns such as 'in/*.dng'; all are one burst, "
            "unless --group-by divides them.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="Where to write; beside the first frame as NAME_burst without it.",
        ),
    ] = None,
    group_by: Annotated[
        Literal["time", "folder"] | None,
        typer.Option(
            metavar="time|folder",
            help="Many bursts: one a folder; or by time, divided by pauses of over two seconds "
            "and by changes of exposure.",
        ),
    ] = None,
    bracket: Annotated[
        bool, typer.Option("--bracket", help="Take frames whose exposures differ, too.")
    ] = False,
    recursive: Recursive = False,
    to: To = None,
    on_exist: OnExist = "error",
    noise: Annotated[str | None, typer.Option(metavar=NOISE_METAVAR, help=NOISE_HELP)] = None,
    model: Annotated[str | None, model_option(TASK)] = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    tile: Tile = None,
    strip: Strip = "none",
    quality: Quality = 95,
    dry_run: DryRun = False,
    record_format: Records = "human",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make one clean picture from a burst of RAW or RGB frames.

    [bold]Examples[/bold]

    restorekit burst a1.dng a2.dng a3.dng    [dim]writes a1_burst.tif[/dim]
    restorekit burst shots -o night.png      [dim]all pictures of a folder are one burst[/dim]
    restorekit burst 'in/*.dng' --to dng     [dim]RAW in, DNG out[/dim]
    restorekit burst -r in -o out --group-by time  [dim]many bursts[/dim]
    """
    prepare(offline=offline, quiet=quiet, verbose=verbose)
    level = parse_noise(noise)
    if STREAM in (*inputs, output):
        raise UsageError("a burst is read from files and written to a file, not through a pipe")
    destination = parse_destination(output)
    chosen = picture_format(destination, to)
    sources, missing, passed = find_sources(
        inputs, recursive=recursive, task=TASK.name, kept_out=destination.folder
    )
    if missing:
        raise not_there(missing)
    if not sources:
        raise nothing_there(inputs, passed)
    if passed and not quiet:
        say(f"warning: passed over {passed_over(passed)}")

    from restorekit.engine.frames import group_files
    from restorekit.engine.merge import BurstJob, merge_files, plan_bursts
    from restorekit.engine.restore import OutputOptions, RestoreOptions

    places = {source.path: source for source in sources}
    bursts = [[places[path] for path in group] for group in group_files(list(places), group_by)]
    targets = plan_targets([b[0] for b in bursts], destination, task=TASK.name, chosen=to)
    jobs = [
        BurstJob(tuple(source.path for source in frames), target)
        for frames, target in zip(bursts, targets, strict=True)
    ]
    options = RestoreOptions(
        model=model, device=device, dtype=dtype, tile=tile, noise=noise_level(level)
    )
    outputs = OutputOptions(format=chosen, strip=strip, quality=quality, on_exist=on_exist)
    with RecordWriter(record_format, quiet=quiet, verbose=verbose, on_stderr=False) as writer:
        if dry_run:
            for record in plan_bursts(jobs, outputs):
                writer.write(record)
        else:
            with reporting(quiet=quiet) as reporter:
                reporter.start(len(jobs), "bursts")
                for record in merge_files(jobs, options, outputs, reporter, bracket=bracket):
                    writer.write(record)
                    reporter.advance()
                reporter.finish()
    raise typer.Exit(writer.exit_code)
