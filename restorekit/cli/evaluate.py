"""The command `eval`: measure models and baselines as the papers do."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restorekit.cli.options import Device, Dtype, Offline
from restorekit.cli.output import plain, quiet_pipe, say, write_json, write_line
from restorekit.cli.progress import reporting
from restorekit.errors import OutputError, UsageError
from restorekit.tasks import TASKS

if TYPE_CHECKING:
    from restorekit.engine.evaluate import Evaluation
    from restorekit.engine.methods import Method
    from restorekit.engine.report import Table
    from restorekit.engine.reporter import Reporter
    from restorekit.metrics import Protocol

ProtocolName = Literal[
    "gaussian-colour",
    "gaussian-grey",
    "sidd",
    "gopro",
    "derain-y",
    "dpdd",
    "burst",
    "burst-unaligned",
]
TableFormat = Literal["human", "markdown", "csv", "json"]


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Clean pictures for the gaussian and burst protocols; else pairs in its folders "
            "input and target, or noisy and clean, paired by name.",
        ),
    ],
    protocol: Annotated[
        ProtocolName | None, typer.Option(show_default=False, help="How it is measured.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Stands for its first protocol: denoise, deblur, derain, burst."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            show_default=False,
            help="Bundled name, model folder or USER/REPO@REVISION; may be given again. The "
            "bundled model of the task where neither --model nor --method is given.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="none|nlm|mean",
            show_default=False,
            help="Baseline beside the models: none (the input as it is), nlm (non-local means "
            "of OpenCV on 8 bits), or of a burst its mean; bursts have none and mean always.",
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            show_default=False,
            help="Noise levels in steps of 0-255; those of the protocol without it.",
        ),
    ] = None,
    neighbours: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            show_default=False,
            help="Of models that match patches: patches of a chunk, one row for each number.",
        ),
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            metavar="H,H,...",
            show_default=False,
            help="Of models that match patches: rounds of hashing, one row for each number.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    tile: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Side of the tiles in pixels; whole pictures up to 2 megapixels without it.",
        ),
    ] = None,
    table_format: Annotated[
        TableFormat, typer.Option("--format", help="How the table is printed on stdout.")
    ] = "human",
    per_image: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the numbers of every picture as well."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|svg", help="Draw PSNR against MACs as well."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Log finished pictures there; the same command goes on after a stop.",
        ),
    ] = None,
    offline: Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
) -> None:
    """Measure models by a paper's protocol, beside its published numbers.

    [bold]Examples[/bold]

    restorekit eval --protocol gaussian-colour --data cbsd68 --sigma 15,25,50
    restorekit eval --task denoise --data cbsd68 --method none --method nlm
    restorekit eval --task derain --data rain100l --model runs/derain -o log
    restorekit eval --task denoise --data cbsd68 --model kit_xs.gaussian --neighbours 1,2,4
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    levels = parse_sigmas(sigma)
    searches = list(
        itertools.product(
            parse_counts("--neighbours", neighbours) or (None,),
            parse_counts("--rounds", rounds) or (None,),
        )
    )

    from restorekit.engine.evaluate import evaluate as run
    from restorekit.engine.plot import check_suffix
    from restorekit.engine.plot import plot as draw
    from restorekit.engine.report import results_csv

    chosen = choose_protocol(protocol, task)
    if plot is not None:
        check_suffix(plot)
    if per_image is not None and per_image.suffix.lower() != ".csv":
        raise UsageError(f"{per_image}: --per-image writes CSV; end the name with .csv")
    for file in (per_image, plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise OutputError(f"{file}: its folder does not exist")
        if file is not None and file.resolve().is_relative_to(data.resolve()):
            raise OutputError(f"{file}: lies among the pictures of --data; name another place")
    with reporting(quiet=quiet) as reporter:
        methods = [
            *_networks(_references(model, method, chosen), searches, device, dtype, tile, reporter),
            *_baselines(method or (["none", "mean"] if chosen.gains else []), chosen),
        ]
        if plot is not None and not any(method.complexity for method in methods):
            raise UsageError(f"{plot}: nothing to draw; only a --model has MACs")
        evaluation = run(methods, chosen, data, levels, folder=output, reporter=reporter)
    _write(evaluation, chosen, table_format, quiet=quiet)
    if per_image is not None:
        _write_file(per_image, results_csv(evaluation.results))
    if plot is not None:
        draw(evaluation, plot)


def parse_sigmas(text: str | None) -> tuple[float, ...]:
    """Return the numbers of a text such as 15,25,50, each once; none of None.

    Raises:
        UsageError: it is something else.
    """
    try:
        return () if text is None else tuple(dict.fromkeys(map(float, text.split(","))))
    except ValueError:
        raise UsageError(f"--sigma {text}: give numbers such as 15,25,50") from None


def parse_counts(option: str, text: str | None) -> tuple[int, ...]:
    """Return the numbers of a text such as 1,2,4, each once; none of None.

    Raises:
        UsageError: it is something else, or one is below 1.
    """
    try:
        counts = () if text is None else tuple(dict.fromkeys(map(int, text.split(","))))
    except ValueError:
        counts = (0,)
    if counts and min(counts) < 1:
        raise UsageError(f"{option} {text}: give whole numbers above 0, such as 1,2,4")
    return counts


def choose_protocol(name: str | None, task: str | None) -> "Protocol":
    """Return the named protocol, or the first of a task.

    Raises:
        UsageError: neither is given, there is no such task, or the two do not fit.
    """
    from restorekit.metrics import PROTOCOLS

    if name is None and task is None:
        raise UsageError("name a --protocol, or a --task for its first one")
    fitting = [p for p in PROTOCOLS.values() if task in (None, p.task) and name in (None, p.name)]
    if fitting:
        return fitting[0]
    tasks = {p.task: None for p in PROTOCOLS.values()}
    if task not in tasks:
        raise UsageError(f"there is no protocol for the task {task!r}; use {', '.join(tasks)}")
    raise UsageError(f"{name} measures {PROTOCOLS[str(name)].task}, not {task}; leave out --task")


def _references(
    models: list[str] | None, baselines: Sequence[str] | None, protocol: "Protocol"
) -> list[str]:
    """Return the models that are measured: those named, or that of the task."""
    if models or baselines:
        return models or []
    task = TASKS[protocol.task]
    grey = protocol.layout == "gray" and task.default_gray_model
    return [grey or task.default_model]


def _networks(
    references: Sequence[str],
    searches: Sequence[tuple[int | None, int | None]],
    device: str,
    dtype: str,
    tile: int | None,
    reporter: "Reporter",
) -> list["Method"]:
    """Return one method a model, or one a search for those that match patches.

    Raises:
        UsageError: a search is given and no model matches patches.
    """
    from restorekit.engine.methods import matches_patches, network
    from restorekit.hub import load_model

    models = [load_model(reference) for reference in references]
    searching = any(map(matches_patches, models))
    return [
        network(
            model,
            device=device,
            dtype=dtype,
            tile=tile,
            neighbours=neighbours,
            rounds=rounds,
            reporter=reporter,
        )
        for model in models
        for neighbours, rounds in (
            searches if matches_patches(model) or not searching else ((None, None),)
        )
    ]


def _baselines(names: Sequence[str], protocol: "Protocol") -> list["Method"]:
    from restorekit.engine.methods import baseline

    return [baseline(name, protocol) for name in names]


def _write(
    evaluation: "Evaluation", protocol: "Protocol", table_format: TableFormat, *, quiet: bool
) -> None:
    """Write the protocol and the table; where a program reads stdout, the protocol on stderr."""
    from restorekit.engine.report import json_rows, markdown, rows_csv, table

    if table_format in ("human", "markdown"):
        write_line(protocol.summary())
    elif not quiet:
        say(protocol.summary())
    if table_format == "json":
        write_json(json_rows(evaluation))
    elif table_format == "csv":
        write_line(rows_csv(evaluation).removesuffix("\n"))
    elif table_format == "markdown":
        write_line("\n" + markdown(table(evaluation)))
    else:
        _print(table(evaluation))


def _print(shown: "Table") -> None:
    """Print a table as wide as it needs; cells are never cut, whatever the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in shown.headings:
        grid.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for line, is_published in zip(shown.lines, shown.is_published, strict=True):
        style = "dim" if is_published else ""
        grid.add_row(*(Text(plain(cell)) for cell in line), style=style)
    with quiet_pipe():
        Console(width=200).print(grid)


def _write_file(path: Path, text: str) -> None:
    from restorekit.io.atomic import atomic_path

    try:
        with atomic_path(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
