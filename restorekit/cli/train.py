"""The train command: a recipe and a few changes to it, made into one run."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from restorekit.cli.main import SIGNALS
from restorekit.cli.options import not_empty
from restorekit.cli.output import say, write_line
from restorekit.cli.progress import reporting
from restorekit.errors import UsageError


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe as TOML; without it, the defaults.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What the network learns.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of clean pictures, or of pairs.")
    ] = None,
    validation_data: Annotated[
        Path | None, typer.Option(help="Folder that the recipe's protocol measures meanwhile.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", callback=not_empty, help="Model whose weights are the start."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, crops and noise.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="End after so many minutes, with a checkpoint.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let the schedule end with --max-minutes.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from a checkpoint, if any.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="Only draw the loss and PSNR of a run so far, to RUN/curves.png.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Train a model from a folder of clean pictures.

    A run that was stopped (Ctrl-C, SIGTERM, --max-minutes) goes on with --resume, and its folder
    is a model: restorekit denoise photo.jpg --model runs/train.
    """
    if plot is not None:
        if recipe is not None:
            raise UsageError("--plot trains nothing; leave out the recipe")
        from restorekit.engine.curves import draw_curves

        write_line(str(draw_curves(plot)))
        return

    from restorekit.engine.recipe import TrainConfig
    from restorekit.engine.train import train as train_model

    given = {
        "task": task,
        "data": [str(folder) for folder in data] if data else None,
        "validation_data": None if validation_data is None else str(validation_data),
        "run": None if output is None else str(output),
        "start": start,
        "steps": steps,
        "seed": seed,
        "max_minutes": max_minutes,
        "finish": finish or None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    config = (
        TrainConfig.from_values(changes) if recipe is None else TrainConfig.read(recipe, changes)
    )
    ended = threading.Event()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: ended.set())
    with reporting(quiet=quiet) as reporter:
        result = train_model(config, resume=resume, reporter=reporter, stop=ended.is_set)
    if not result.finished:
        say(f"stopped after {result.steps} steps; --resume goes on")
    write_line(str(result.folder))
