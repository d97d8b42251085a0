"""The `models` commands: list, describe, check, fetch, convert and publish models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restorekit.cli.output import plain, say, write_json, write_line
from restorekit.errors import NoInputError, UnavailableError

if TYPE_CHECKING:
    from restorekit.hub import ModelCard

app = typer.Typer(help="List, describe, check, fetch, convert and publish models.")

Format = Annotated[
    Literal["human", "json"], typer.Option("--format", help="How results are written.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A bundled name, a model folder, or a Hub repository user/repo@revision.",
    ),
]


@app.command()
def ls(output_format: Format = "human") -> None:
    """List the bundled models."""
    from restorekit.hub import bundled_cards

    cards = list(bundled_cards().values())
    if output_format == "json":
        write_json([card.to_json() for card in cards])
        return
    width = max((len(card.name) for card in cards), default=0)
    for card in cards:
        write_line(plain(f"{card.name:{width}}  {card.task:8}  {card.layout:5}  {card.licence}"))


@app.command()
def info(model: Model, output_format: Format = "human", offline: Offline = False) -> None:
    """Show a model's card: licence, data, recipe, scores, sha256 and size."""
    from restorekit.hub import locate

    card, path = locate(model, offline=offline)
    size = path.stat().st_size if path and path.is_file() else None
    facts: dict[str, Any] = card.to_json() | {"size": size}
    if output_format == "json":
        write_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        if name == "size" and size is not None:
            value = f"{size:,} bytes"
        if value:
            write_line(plain(f"{name:13} {value}"))


@app.command()
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", show_default=False, help="Models; all bundled ones without any."
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also restore drawn pictures and compare the PSNR.")
    ] = False,
    output_format: Format = "human",
    offline: Offline = False,
) -> None:
    """Compute the sha256 of models again and compare it with their cards; exit 69 on a mismatch."""
    from restorekit.hub import DRAWN_SCORE, bundled_cards, fetch, find_card

    references = models or list(bundled_cards())
    cards = []
    for reference in references:
        try:
            if not find_card(reference, offline=offline).sha256:
                say(f"warning: the card of {reference} states no sha256 to compare with")
            card = fetch(reference, offline=offline)[0]
            cards.append(_scored(reference, card, offline=offline) if scores else card)
        except UnavailableError as error:
            say(f"error: {error}")
    _write_cards(cards, output_format, DRAWN_SCORE if scores else "")
    if failed := len(references) - len(cards):
        raise UnavailableError(f"{failed} of {len(references)} models did not pass")


@app.command()
def pull(model: Model, output_format: Format = "human", offline: Offline = False) -> None:
    """Download a model of the Hub into the local cache and check it."""
    from restorekit.hub import fetch

    _write_cards([fetch(model, offline=offline)[0]], output_format)


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.pth", show_default=False, help="A published checkpoint of KBNet."
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", show_default=False, help="The model folder to make.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The model's name; the folder's without it."),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="The verb that the model is for.")
    ] = "denoise",
    output_format: Format = "human",
) -> None:
    """Convert a published KBNet checkpoint to a model folder, without running what it holds."""
    from restorekit import hub

    if not checkpoint.exists():
        raise NoInputError(f"{checkpoint}: no such file")
    card = hub.import_checkpoint(checkpoint, folder, name or folder.resolve().name, task=task)
    _write_cards([card], output_format)


@app.command()
def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False, help="A model folder or a bundled name."
        ),
    ],
    repository: Annotated[
        str, typer.Argument(metavar="USER/REPO", show_default=False, help="Where to publish it.")
    ],
    output_format: Format = "human",
) -> None:
    """Publish a model on the Hub; log in by `hf auth login` or set HF_TOKEN first."""
    from restorekit.hub import push_model

    _write_cards([push_model(model, repository)], output_format)


def _scored(reference: str, card: ModelCard, *, offline: bool) -> ModelCard:
    """Return a card with the score on drawn pictures, after comparing the two."""
    from restorekit.engine.quick_score import TOLERANCE, quick_score
    from restorekit.hub import DRAWN_SCORE, load_model

    score = round(quick_score(load_model(reference, offline=offline)), 2)
    stated = card.scores.get(DRAWN_SCORE)
    if stated is not None and abs(score - stated) > TOLERANCE:
        raise UnavailableError(
            f"{card.name} restores {DRAWN_SCORE} to {score:.2f} dB, its card says {stated:.2f} dB"
        )
    return dataclasses.replace(card, scores=card.scores | {DRAWN_SCORE: score})


def _write_cards(cards: list[ModelCard], output_format: str, measured: str = "") -> None:
    if output_format == "json":
        write_json([card.to_json() for card in cards])
        return
    for card in cards:
        name = f"{card.repo}@{card.revision}" if card.repo else card.name
        score = f"  {measured} {card.scores[measured]:.2f} dB" if measured else ""
        write_line(plain(f"{name}  sha256 {card.sha256}{score}"))
