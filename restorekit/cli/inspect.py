"""The command `inspect`: draw what a network sees in a picture."""

import os
from pathlib import Path
from typing import Annotated

import typer

from restorekit.cli.options import Device, Offline
from restorekit.cli.output import write_line
from restorekit.cli.restore import parse_crop
from restorekit.errors import NoInputError, OutputError, UsageError


def inspect(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Photograph, RAW or RGB.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            show_default=False,
            help="KiT or KBNet: bundled name, model folder or USER/REPO@REVISION.",
        ),
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            show_default=False,
            help="Of KiT: pixel in a patch whose matches are framed; may be given again. The "
            "middle of the picture without it.",
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(
            show_default=False, help="Number of the block, from 1 on; the last one without it."
        ),
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Look at this rectangle only.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.png",
            help="Where to write; beside the picture as NAME_inspect.png without it.",
        ),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
) -> None:
    """Show which patches KiT matches, or which kernels KBNet mixes where.

    Of KiT, thick frames are the chosen patches, thin ones the patches that they attend to. Of
    KBNet, pixels of alike colours mix alike kernels. --at and --crop are in pixels of the picture
    as it is looked at; --at counts from the corner of the crop.

    [bold]Examples[/bold]

    restorekit inspect wall.jpg --model kit_xs.gaussian --at 200,120 --at 64,300
    restorekit inspect shot.dng --model kbnet_xs.gaussian --block 4 -o kernels.png
    """
    points, window = [parse_point(text) for text in at or ()], parse_crop(crop)
    target = output or picture.with_name(f"{picture.stem}_inspect.png")
    if target.suffix.lower() != ".png":
        raise UsageError(f"{target}: inspect writes PNG; end the name with .png")
    if os.path.lexists(target):
        raise OutputError(f"{target} exists; name another -o")

    from restorekit import io
    from restorekit.engine.inspect import inspect as draw
    from restorekit.engine.inspect import upright
    from restorekit.hub import load_model
    from restorekit.io.atomic import atomic_path

    if not picture.exists():
        raise NoInputError(f"{picture}: no such file")
    image = upright(io.read_image(picture), window)
    loaded = load_model(model, offline=offline)
    drawn = draw(image, loaded, block=block, at=points, device=device)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, overwrite=False) as part:
            drawn.save(part, format="PNG")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    write_line(str(target))


def parse_point(text: str) -> tuple[int, int]:
    """Return x and y of a text such as 200,120.

    Raises:
        UsageError: it is something else.
    """
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"--at {text}: give x,y in pixels, such as 200,120") from None
    return x, y
