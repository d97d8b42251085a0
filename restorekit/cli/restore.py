"""The commands that restore single pictures, one made from each task.

No `from __future__ import annotations` here: the annotations of a command made in a function name
variables of that function, and only annotations evaluated at once keep their values apart.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restorekit.cli.output import RecordFormat, RecordWriter
from restorekit.cli.progress import reporting
from restorekit.cli.targets import parse_destination
from restorekit.cli.work import Work, find_work
from restorekit.errors import OutputError, UsageError
from restorekit.tasks import Task

if TYPE_CHECKING:
    from restorekit.image import NoiseProfile

PictureFormat = Literal["png", "jpg", "tiff", "webp", "dng", "cfa-dng"]
OnExist = Literal["error", "skip", "overwrite", "rename"]
Strip = Literal["none", "gps", "all"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


def examples(verb: str) -> str:
    """Return the examples of a verb in rich markup, for the head of a help text."""
    lines = {
        f"{verb} photo.jpg": f"writes photo_{verb}.jpg",
        f"{verb} shot.dng --to dng": "RAW in, DNG out",
        f"{verb} -r photos -o clean": "a whole tree",
        f"{verb} 'in/*.png' -o out --on-exist skip": "carry on after a stop",
        f"{verb} - < in.png > out.png": "a pipe",
    }
    width = max(map(len, lines))
    shown = [f"restorekit {line:{width}}  [dim]{what}[/dim]" for line, what in lines.items()]
    return "\n".join(["[bold]Examples[/bold]\n", *shown])


def restore_command(task: Task) -> Callable[..., None]:
    """Return the command of a task, for typer to register."""

    def restore(
        inputs: Annotated[
            list[str],
            typer.Argument(
                metavar="INPUT",
                show_default=False,
                help="Files, folders, quoted patterns such as 'in/**/*.png', or - for a pipe.",
            ),
        ],
        output: Annotated[
            str | None,
            typer.Option(
                "--output",
                "-o",
                metavar="FILE|FOLDER|-",
                help=f"Where to write; beside the input as NAME_{task.name} without it.",
            ),
        ] = None,
        recursive: Annotated[
            bool, typer.Option("--recursive", "-r", help="Walk the folders below a folder too.")
        ] = False,
        to: Annotated[
            PictureFormat | None,
            typer.Option(
                metavar="FORMAT",
                help="Picture format: png, jpg, tiff, webp, or of RAW also dng (linear) and "
                "cfa-dng (the mosaic). As the input without it, RAW to 16-bit TIFF.",
            ),
        ] = None,
        on_exist: Annotated[
            OnExist,
            typer.Option(
                metavar="CHOICE",
                help="When the output exists: error, skip, overwrite or rename.",
            ),
        ] = "error",
        noise: Annotated[
            str | None,
            typer.Option(
                metavar="SIGMA|SHOT,READ",
                hidden=not task.takes_noise_level,
                help="Strength of the noise; measured without it. RGB: its deviation in steps "
                "of 0-255. RAW: shot and read, variance = shot * signal + read^2, white 1.",
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
            typer.Option(metavar="FILE", help="Write before and after side by side as well."),
        ] = None,
        model: Annotated[
            str | None,
            typer.Option(
                metavar="MODEL",
                help=f"A bundled name (see models ls; {task.default_model} without it), a model "
                "folder, or USER/REPO@REVISION of the Hugging Face Hub.",
            ),
        ] = None,
        offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
        dtype: Annotated[Dtype, typer.Option(help="Precision of the network.")] = "auto",
        tile: Annotated[
            int | None,
            typer.Option(min=16, help="Side of the tiles in pixels; from free memory without it."),
        ] = None,
        strip: Annotated[Strip, typer.Option(help="Metadata to leave out of the output.")] = "none",
        quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")] = 95,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")
        ] = False,
        record_format: Annotated[
            RecordFormat, typer.Option("--format", help="How results are printed on stdout.")
        ] = "human",
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="Print device, precision and time.")
        ] = False,
    ) -> None:
        if offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if quiet and verbose:
            raise UsageError("-q and -v contradict each other")
        if noise is not None and not task.takes_noise_level:
            raise UsageError(f"{task.name} takes no --noise")
        level, window = parse_noise(noise), parse_crop(crop)
        with ExitStack() as folders:

            def pipe_folder() -> Path:
                return Path(folders.enter_context(TemporaryDirectory(prefix="restorekit-")))

            work = find_work(
                inputs,
                output,
                recursive=recursive,
                chosen=to,
                task=task.name,
                pipe_folder=pipe_folder,
            )
            if window is not None and work.picture_format in ("dng", "cfa-dng"):
                raise UsageError("--crop gives a developed picture, no DNG; choose tiff or png")
            if compare is not None:
                _check_comparison(compare, work, on_exist)

            from restorekit.engine.restore import OutputOptions, RestoreOptions

            options = RestoreOptions(
                model=model,
                device=device,
                dtype=dtype,
                tile=tile,
                noise=_noise_level(level),
                strength=strength,
                crop=window,
            )
            outputs = OutputOptions(
                format=work.picture_format, strip=strip, quality=quality, on_exist=on_exist
            )
            with RecordWriter(
                record_format, quiet=quiet, verbose=verbose, on_stderr=work.to_stdout
            ) as writer:
                if dry_run:
                    work.plan(outputs, writer)
                else:
                    with reporting(quiet=quiet) as reporter:
                        work.run(task, options, outputs, writer, reporter, compare)
        raise typer.Exit(writer.exit_code)

    restore.__doc__ = f"{task.summary}\n\n{examples(task.name)}"
    return restore


def _check_comparison(compare: Path, work: Work, on_exist: OnExist) -> None:
    if len(work.sources) != 1:
        raise UsageError(f"--compare shows one picture, not {len(work.sources)}")
    if parse_destination(str(compare)).file is None:
        raise UsageError(f"--compare {compare}: give a file name such as compare.png")
    if compare.resolve() in (work.sources[0].path.resolve(), work.targets[0].resolve()):
        raise UsageError(f"--compare {compare} is the input or the output; name a third file")
    if compare.exists() and on_exist != "overwrite":
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


def parse_noise(text: str | None) -> tuple[float, ...] | None:
    """Return the one number of SIGMA or the two of SHOT,READ.

    Raises:
        UsageError: it is something else, or negative, or not finite.
    """
    if text is None:
        return None
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or not all(0 <= number < inf for number in numbers):
        raise UsageError(f"--noise {text}: give SIGMA in steps of 0-255, or SHOT,READ for RAW")
    return numbers


def _noise_level(numbers: tuple[float, ...] | None) -> "float | NoiseProfile | None":
    from restorekit.image import NoiseProfile

    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else NoiseProfile(*numbers)
