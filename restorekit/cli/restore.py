"""The commands that restore single pictures, one made from each task.

No `from __future__ import annotations` here: the annotations of a command made in a function name
variables of that function, and only annotations evaluated at once keep their values apart.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from restorekit.cli.inputs import temporary_space
from restorekit.cli.options import (
    NOISE_HELP,
    NOISE_METAVAR,
    TO_ANY,
    TO_DEVELOPED,
    Device,
    DryRun,
    Dtype,
    Inputs,
    Offline,
    OnExist,
    PictureFormat,
    Quality,
    Quiet,
    Records,
    Recursive,
    Strip,
    Tile,
    Verbose,
    model_option,
    noise_level,
    parse_noise,
    prepare,
)
from restorekit.cli.output import RecordWriter
from restorekit.cli.progress import reporting
from restorekit.cli.targets import parse_destination
from restorekit.cli.work import Work, find_work
from restorekit.errors import OutputError, UsageError
from restorekit.tasks import TASKS, Task

DENOISER = TASKS["denoise"].default_model


def examples(task: Task) -> str:
    """Return the examples of a task in rich markup, for the head of a help text."""
    verb = task.name
    lines = {f"{verb} photo.jpg": f"writes photo_{verb}.jpg"}
    if task.takes_mosaics:
        lines[f"{verb} shot.dng --to dng"] = "RAW in, DNG out"
    else:
        lines[f"{verb} shot.dng"] = f"denoised, developed: writes shot_{verb}.tif"
    if task.takes_psf:
        lines[f"{verb} photo.jpg --psf psf.png"] = "a blur that is known"
    lines |= {
        f"{verb} -r photos -o clean": "a whole tree",
        f"{verb} 'in/*.png' -o out --on-exist skip": "carry on after a stop",
        f"{verb} - < in.png > out.png": "a pipe",
    }
    width = max(map(len, lines))
    shown = [f"restorekit {line:{width}}  [dim]{what}[/dim]" for line, what in lines.items()]
    return "\n".join(["[bold]Examples[/bold]\n", *shown])


def restore_command(task: Task) -> Callable[..., None]:
    """Return the command of a task, for typer to register."""
    noise_help = NOISE_HELP
    if not task.takes_noise_level:
        known = ", and with --psf" if task.takes_psf else ""
        noise_help += f" Taken of RAW pictures, which are denoised first{known}."

    def restore(
        inputs: Inputs,
        output: Annotated[
            str | None,
            typer.Option(
                "--output",
                "-o",
                metavar="FILE|FOLDER|-",
                help=f"Where to write; beside the input as NAME_{task.name} without it.",
            ),
        ] = None,
        recursive: Recursive = False,
        to: Annotated[PictureFormat | None, TO_ANY if task.takes_mosaics else TO_DEVELOPED] = None,
        on_exist: OnExist = "error",
        noise: Annotated[
            str | None,
            typer.Option(metavar=NOISE_METAVAR, help=noise_help),
        ] = None,
        no_denoise: Annotated[
            bool,
            typer.Option(
                "--no-denoise",
                hidden=task.takes_mosaics,
                help="Leave the noise, which is removed first where it shows.",
            ),
        ] = False,
        psf: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                hidden=not task.takes_psf,
                help="Undo a blur that is known: a grey picture of how it spreads a point, whose "
                "own place is the middle. The model is then the denoiser that serves as prior, "
                f"{DENOISER} without --model.",
            ),
        ] = None,
        strength: Annotated[
            float, typer.Option(min=0.0, max=1.0, help="0 keeps the input, 1 is the full effect.")
        ] = 1.0,
        crop: Annotated[
            str | None,
            typer.Option(metavar="X,Y,W,H", help="Restore only this rectangle, as a preview."),
        ] = None,
        compare: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="Write before and after as well, side by side, or a .html page with a slider.",
            ),
        ] = None,
        model: Annotated[str | None, model_option(task)] = None,
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
        prepare(offline=offline, quiet=quiet, verbose=verbose)
        if no_denoise and task.takes_mosaics:
            raise UsageError(f"{task.name} takes no --no-denoise")
        if psf is not None and not task.takes_psf:
            raise UsageError(f"{task.name} takes no --psf")
        level, window = parse_noise(noise), parse_crop(crop)
        with ExitStack() as folders:

            def pipe_folder() -> Path:
                with temporary_space():
                    return Path(folders.enter_context(TemporaryDirectory(prefix="restorekit-")))

            work = find_work(
                inputs,
                output,
                recursive=recursive,
                chosen=to,
                task=task.name,
                quiet=quiet,
                pipe_folder=pipe_folder,
            )
            _check_format(task, work, window)
            if compare is not None:
                _check_comparison(compare, work, psf, on_exist)

            from restorekit.engine.restore import OutputOptions, RestoreOptions

            options = RestoreOptions(
                model=model,
                device=device,
                dtype=dtype,
                tile=tile,
                noise=noise_level(level),
                strength=strength,
                crop=window,
                denoise=not no_denoise,
                psf=psf,
            )
            outputs = OutputOptions(
                format=work.picture_format, strip=strip, quality=quality, on_exist=on_exist
            )
            with RecordWriter(
                record_format,
                quiet=quiet,
                verbose=verbose or (dry_run and not quiet),
                on_stderr=work.to_stdout,
            ) as writer:
                if dry_run:
                    work.plan(outputs, writer)
                else:
                    with reporting(quiet=quiet) as reporter:
                        work.run(task, options, outputs, writer, reporter, compare)
        raise typer.Exit(writer.exit_code)

    restore.__doc__ = f"{task.summary}\n\n{examples(task)}"
    return restore


def _check_format(task: Task, work: Work, window: tuple[int, int, int, int] | None) -> None:
    if work.picture_format in ("dng", "cfa-dng") and not (task.takes_mosaics and window is None):
        reason = "--crop" if task.takes_mosaics else task.name
        raise UsageError(f"{reason} gives a developed picture, no DNG; choose tiff or png")


def _check_comparison(compare: Path, work: Work, psf: Path | None, on_exist: str) -> None:
    if len(work.sources) != 1:
        raise UsageError(f"--compare shows one picture, not {len(work.sources)}")
    suffix = compare.suffix.lower()
    if suffix == ".dng" or (suffix != ".html" and parse_destination(str(compare)).file is None):
        raise UsageError(f"--compare {compare}: give a file name such as compare.png")
    others = (work.sources[0].path, work.targets[0], psf)
    if compare.resolve() in (other.resolve() for other in others if other is not None):
        raise UsageError(f"--compare {compare} is an input or the output; name another file")
    if os.path.lexists(compare) and on_exist not in ("overwrite", "skip"):
        raise OutputError(f"{compare} exists; choose --on-exist overwrite or another name")


def parse_crop(text: str | None) -> tuple[int, int, int, int] | None:
    """Return x, y, width, height of a text such as 0,0,512,512.

    Raises:
        UsageError: it is something else, or an empty rectangle.
    """
    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"--crop {text}: give x,y,width,height in pixels") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise UsageError(f"--crop {text}: the rectangle is empty or begins outside")
    return x, y, width, height
