"""The options that the commands which write pictures share, as typer declares them."""

import os
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restorekit.cli.output import RecordFormat
from restorekit.errors import UsageError
from restorekit.tasks import Task

if TYPE_CHECKING:
    from restorekit.image import NoiseProfile

PictureFormat = Literal["png", "jpg", "tiff", "webp", "dng", "cfa-dng"]

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Files, folders, quoted patterns such as 'in/**/*.png', or - for a pipe.",
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Walk the folders below a folder too.")
]
TO_DEVELOPED = typer.Option(
    metavar="FORMAT",
    help="Picture format: png, jpg, tiff or webp. As the input without it, RAW to 16-bit TIFF.",
)
TO_ANY = typer.Option(
    metavar="FORMAT",
    help="Picture format: png, jpg, tiff, webp, or of RAW also dng (linear) and "
    "cfa-dng (the mosaic). As the input without it, RAW to 16-bit TIFF.",
)
To = Annotated[PictureFormat | None, TO_ANY]
OnExist = Annotated[
    Literal["error", "skip", "overwrite", "rename"],
    typer.Option(
        metavar="CHOICE",
        help="When the output exists: error, skip, overwrite or rename.",
    ),
]
NOISE_METAVAR = "SIGMA|SHOT,READ"
NOISE_HELP = (
    "Strength of the noise; measured without it. RGB: its deviation in steps of 0-255. "
    "RAW: shot and read, variance = shot * signal + read^2, white 1."
)
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    Literal["auto", "bfloat16", "float16", "float32"],
    typer.Option(help="Precision of the network."),
]
Tile = Annotated[
    int | None,
    typer.Option(min=16, help="Side of the tiles in pixels; from free memory without it."),
]
Strip = Annotated[
    Literal["none", "gps", "all"], typer.Option(help="Metadata to leave out of the output.")
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")]
Records = Annotated[
    RecordFormat, typer.Option("--format", help="How results are printed on stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print device, precision and time.")]


def model_option(task: Task) -> Any:
    """Return the option --model of a task."""
    own = task.default_model
    if task.default_bayer_model is not None:
        own += f", of Bayer RAW files {task.default_bayer_model},"
    return typer.Option(
        metavar="MODEL",
        callback=not_empty,
        help=f"A bundled name (see models ls; {own} without it), a model "
        "folder, or USER/REPO@REVISION of the Hugging Face Hub.",
    )


def not_empty(model: str | None) -> str | None:
    """Refuse the empty name of an unset shell variable, which would pass for no name at all.

    Raises:
        UsageError: it is empty.
    """
    if model == "":
        raise UsageError(
            "the model is an empty word, as of an unset shell variable; "
            "name one, or leave the option out"
        )
    return model


def prepare(*, offline: bool, quiet: bool, verbose: bool) -> None:
    """Shut the network off if asked, before a library looks for it.

    Raises:
        UsageError: the run shall be quiet and verbose.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other")


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


def noise_level(numbers: tuple[float, ...] | None) -> "float | NoiseProfile | None":
    """Return what parse_noise found as the engine takes it."""
    from restorekit.image import NoiseProfile

    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else NoiseProfile(*numbers)
