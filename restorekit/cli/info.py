"""The command `info`: facts about this machine, a model or a picture."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restorekit import __version__
from restorekit.cli.output import plain, write_json, write_line
from restorekit.errors import NoInputError, UsageError

if TYPE_CHECKING:
    from restorekit.image import Image

Facts = dict[str, Any]

VERSION = 1
SIDE = 256


def info(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARCHITECTURE|MODEL|FILE]",
            show_default=False,
            help="What to describe; this machine without it.",
        ),
    ] = None,
    record_format: Annotated[
        Literal["human", "json"], typer.Option("--format", help="How results are printed.")
    ] = "human",
) -> None:
    """Show this machine, the size of a model, or what a picture file holds.

    [bold]Examples[/bold]

    restorekit info                        [dim]devices, threads, bundled models[/dim]
    restorekit info kbnet_s --format json  [dim]parameters and MACs at 256x256[/dim]
    restorekit info shot.dng               [dim]depth, colour filter, noise[/dim]
    """
    if subject is None:
        facts = machine_facts()
    elif not subject:
        raise UsageError("the word to describe is empty, as of an unset shell variable")
    elif os.path.exists(subject) and not os.path.isdir(subject):
        facts = picture_facts(Path(subject))
    else:
        facts = model_facts(subject)
    if record_format == "json":
        write_json({"version": VERSION, **facts})
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        write_line(f"{name.replace('_', ' '):{width}}  {plain(_readable(value))}")


def machine_facts() -> Facts:
    """Return versions, devices with the precision that auto takes there, and bundled models."""
    import platform

    import torch

    from restorekit.engine.device import DTYPES, choose_dtype
    from restorekit.hub import bundled_cards
    from restorekit.ops.compiled import library

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "restorekit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu_kernels": "compiled" if library("kernel_basis_forward") else "plain, for want of g++",
        "devices": {
            device: str(choose_dtype("auto", torch.device(device), DTYPES)).removeprefix("torch.")
            for device in devices
        },
        "models": sorted(bundled_cards()),
    }


def model_facts(name: str) -> Facts:
    """Return the parameters and the multiply-accumulates of a model for a 256x256 picture.

    `macs_layers` counts the convolutions and linear layers alone, as papers do; `macs` counts
    everything.

    Args:
        name: an architecture, for its default config, or whatever --model takes.

    Raises:
        NoInputError: the name is that of a file that is not there.
    """
    from restorekit.hub import find_card
    from restorekit.io import is_image_path
    from restorekit.models import architectures, create_model
    from restorekit.models.complexity import count_macs

    if name in architectures():
        facts: Facts = {"architecture": name}
        model = create_model(name)
    elif is_image_path(Path(name)):
        raise NoInputError(f"{name}: no such file")
    else:
        card = find_card(name)
        facts = {"model": card.name, "architecture": card.architecture, "task": card.task}
        facts |= {"licence": card.licence, "sha256": card.sha256, "scores": dict(card.scores)}
        model = create_model(card.architecture, card.config)
    complexity = count_macs(model, SIDE, SIDE)
    return facts | {
        "input": f"{SIDE}x{SIDE}",
        "parameters": complexity.parameters,
        "macs_layers": complexity.macs_layers,
        "macs": complexity.macs,
    }


def picture_facts(path: Path) -> Facts:
    """Return what a picture file says about itself, and the noise that its pixels show."""
    from restorekit.image import Layout
    from restorekit.io import read_image

    image = read_image(path)
    metadata = image.metadata
    scale = 2 if image.layout is Layout.BAYER else 1
    return {
        "file": str(path),
        "width": image.width * scale,
        "height": image.height * scale,
        "bit_depth": metadata.bit_depth,
        "layout": image.layout.value,
        "transfer": image.transfer.value,
        "alpha": image.alpha is not None,
        "cfa": metadata.cfa,
        "black_level": list(metadata.black_level),
        "white_level": metadata.white_level,
        "camera": " ".join(filter(None, (metadata.make, metadata.model))) or None,
        "iso": metadata.iso,
        "exposure_time": metadata.exposure_time,
        "orientation": metadata.orientation,
        "noise_stated": _profile(metadata.noise.shot, metadata.noise.read)
        if metadata.noise
        else None,
        "noise_estimated": _estimated_noise(image) if image.pixels.isfinite().all() else None,
    }


def _estimated_noise(image: "Image") -> Facts:
    """Return the noise of a mosaic, or of a finished picture as strong as it looks."""
    from restorekit.engine.domain import finished_noise_of, without_hot_pixels
    from restorekit.image import Layout
    from restorekit.ops.noise import estimate_noise_profile

    if image.layout is Layout.BAYER:
        return _profile(*estimate_noise_profile(without_hot_pixels(image, None).pixels))
    return {"sigma": 255 * finished_noise_of(image).coarse}


def _profile(shot: float, read: float) -> Facts:
    return {"shot": shot, "read": read}


def _readable(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_readable, value))
    return str(value)
