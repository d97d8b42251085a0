"""Models by reference: find, check, load, save, import and push them.

A model is a folder of config.json (its card) and model.safetensors; a bundled model is an entry of
weights/manifest.json with its file beside it. Torch is imported only where tensors are touched.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from restorekit.errors import ConfigError, OutputError, UnavailableError, UsageError
from restorekit.hub import remote
from restorekit.hub.card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_card, read_json

if TYPE_CHECKING:
    from restorekit.models import RestorationModel

MANIFEST_VERSION = 1

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_REFERENCE = re.compile(rf"({_REPOSITORY.pattern})(?:@([\w./-]+))?")


@dataclass(frozen=True)
class LoadedModel:
    """Hold a network that is ready to run: float32, on the CPU, in evaluation mode."""

    model: RestorationModel
    card: ModelCard


def weights_folder() -> Path:
    """Return the folder of the bundled weights: inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def bundled_cards() -> dict[str, ModelCard]:
    """Return the cards of the bundled models by name.

    Raises:
        ConfigError: the manifest is wrong.
    """
    path = weights_folder() / "manifest.json"
    manifest = read_json(path)
    try:
        if not isinstance(manifest, dict) or manifest.get("version") != MANIFEST_VERSION:
            raise ConfigError(f"its version is not {MANIFEST_VERSION}")
        cards = [ModelCard.from_json(values) for values in manifest.get("models", [])]
        if unchecked := [card.name for card in cards if not card.sha256]:
            raise ConfigError(f"no sha256 is stated for {', '.join(unchecked)}")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return {card.name: card for card in cards}


def find_card(reference: str, *, offline: bool = False) -> ModelCard:
    """Return the card of a bundled name, a model folder or a Hub repository.

    Raises:
        UnavailableError: there is no such model.
        ConfigError: its card is wrong.
    """
    return locate(reference, offline=offline)[0]


def locate(reference: str, *, offline: bool = False) -> tuple[ModelCard, Path | None]:
    """Find a model without reading or downloading its weights.

    Args:
        reference: bundled name, folder, or Hub repository `user/repo@revision`; without a
            revision, main. A Hub card names the commit that the revision stands for.
        offline: use only what is on this machine.

    Returns:
        The card, and the weights file where it should be; None if it was not downloaded yet.

    Raises:
        UsageError: the reference is empty.
        UnavailableError: there is no such model.
        ConfigError: its card is wrong.
    """
    if not reference:
        raise UsageError("the model is an empty word, as of an unset shell variable; name one")
    bundled = bundled_cards()
    if reference in bundled:
        return bundled[reference], weights_folder() / bundled[reference].file
    folder = Path(os.path.expanduser(reference))
    if os.path.isdir(folder):
        card = read_card(folder / CARD_FILE)
        return card, folder / card.file
    if os.path.isfile(folder):
        raise UnavailableError(
            f"{reference} is a file; name a model folder, or make one of a checkpoint "
            "by `restorekit models import`"
        )
    if hub_reference := _HUB_REFERENCE.fullmatch(reference):
        repo, revision = hub_reference.groups()
        try:
            return _locate_on_hub(repo, revision or "main", offline)
        except UnavailableError as error:
            if revision:
                raise
            raise UnavailableError(
                f"there is no folder {reference} here and no bundled model of that name; "
                f"looked for on the Hub: {error}"
            ) from error
    known = ", ".join(sorted(bundled)) or "none"
    raise UnavailableError(
        f"there is no model {reference!r}; bundled are: {known}; "
        "else name a model folder or a Hub repository user/repo@revision"
    )


def fetch(reference: str, *, offline: bool = False) -> tuple[ModelCard, Path]:
    """Return a model's card and its weights file, downloaded if need be, its sha256 checked.

    A card that states no sha256 is returned with that of the file.

    Raises:
        UnavailableError: the model cannot be had, or its file is not the one of the card.
        ConfigError: its card is wrong.
    """
    card, path = locate(reference, offline=offline)
    if path is None:
        assert card.repo is not None
        assert card.revision is not None
        path = remote.download(card.repo, card.file, card.revision, offline=offline)
    return verify(card, path), path


def verify(card: ModelCard, path: Path) -> ModelCard:
    """Check a weights file against the sha256 of its card.

    Returns:
        The card with the sha256 of the file.

    Raises:
        UnavailableError: the file cannot be read, or another sha256 is stated.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnavailableError(
            f"{card.name}: cannot read its weights {path}: {error.strerror}"
        ) from error
    if card.sha256 not in ("", sha256):
        raise UnavailableError(
            f"{card.name}: the weights {path.resolve()} have sha256 {sha256[:12]}..., "
            f"but the card states {card.sha256[:12]}...; delete the file and fetch it again"
        )
    return replace(card, sha256=sha256)


def load_model(reference: str, *, offline: bool = False) -> LoadedModel:
    """Load a bundled model, a model folder or a Hub repository, after checking its sha256.

    Args:
        reference: bundled name, folder, or `user/repo@revision`.
        offline: use only what is on this machine.

    Raises:
        UnavailableError: the model cannot be had, or its file is damaged or of another network.
        ConfigError: its card is wrong.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from restorekit.image import Layout
    from restorekit.models import create_model
    from restorekit.models.convert import load_tensors

    card, path = fetch(reference, offline=offline)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UnavailableError(f"{path} is no readable safetensors file: {error}") from error
    try:
        model = create_model(card.architecture, card.config)
    except ConfigError as error:
        raise ConfigError(f"cannot build {card.name} from its card: {error}") from error
    spec, planes = model.spec, Layout(card.layout).planes
    if (spec.in_channels, spec.out_channels) != (planes * spec.frames, planes):
        raise ConfigError(
            f"the card of {card.name} says {card.layout}, but its network takes "
            f"{spec.in_channels} planes and returns {spec.out_channels}"
        )
    try:
        load_tensors(model, tensors)
    except ConfigError as error:
        raise UnavailableError(
            f"{path} does not fit the {card.architecture} of its card: {error}"
        ) from error
    return LoadedModel(model.eval(), card)


def save_model(
    model: RestorationModel, card: ModelCard, folder: Path, *, dtype: str = "float32"
) -> ModelCard:
    """Write a model folder, each file atomically, over an earlier one.

    Args:
        model: network of the card's architecture and config.
        card: what to state; file, sha256, repo and revision are set anew.
        folder: where to write; made if it does not exist.
        dtype: storage type of the floating-point tensors: float32, float16 or bfloat16.

    Returns:
        The card as written.

    Raises:
        OutputError: the folder cannot be written.
    """
    from safetensors.torch import save

    from restorekit.io.atomic import atomic_path
    from restorekit.models.registry import torch_dtype

    storage = torch_dtype(dtype)
    tensors = {
        name: tensor.detach()
        .to("cpu", storage if tensor.is_floating_point() else None)
        .contiguous()
        for name, tensor in model.state_dict().items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS_FILE) as part:
            part.write_bytes(save(tensors))
        card = replace(card, file=WEIGHTS_FILE, sha256="", repo=None, revision=None)
        card = verify(card, folder / WEIGHTS_FILE)
        with atomic_path(folder / CARD_FILE) as part:
            part.write_text(card.to_text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the model folder {folder}: {error.strerror}") from error
    return card


def import_checkpoint(path: Path, folder: Path, name: str, *, task: str = "denoise") -> ModelCard:
    """Convert a published KBNet checkpoint to a model folder.

    The file is read as plain tensors; a pickle that holds anything else is refused, never run.

    Raises:
        UnavailableError: the file cannot be read, holds more than tensors, or is no KBNet.
        OutputError: the folder holds a model already, or cannot be written.
    """
    import torch

    from restorekit.models.convert import convert_kbnet

    if (folder / CARD_FILE).exists():
        raise OutputError(f"{folder} holds a model already; name another folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of pickles that it did not write
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle may fail in any way
        raise UnavailableError(
            f"{path} is refused: it is damaged, or a pickle of more than plain tensors, "
            "which could run code"
        ) from error
    try:
        architecture, config, model = convert_kbnet(checkpoint)
    except ConfigError as error:
        raise UnavailableError(f"{path}: {error}") from error
    layout = {1: "gray", 3: "rgb"}.get(model.spec.in_channels)
    if layout is None:
        raise UnavailableError(f"{path} takes {model.spec.in_channels} planes, not 1 or 3")
    card = ModelCard(name, architecture, config, task, "srgb", layout, recipe=f"from {path.name}")
    return save_model(model, card, folder)


def push_model(reference: str, repo: str) -> ModelCard:
    """Upload a bundled model or a model folder to a Hub repository, made if it does not exist.

    Args:
        reference: bundled name or folder.
        repo: `user/repo`; huggingface-hub finds the token.

    Returns:
        The card with the repository and the new commit.

    Raises:
        UsageError: repo is not of the form user/repo.
        UnavailableError: the model is damaged, or the Hub refuses or cannot be reached.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise UsageError(f"{repo!r} is no Hub repository; write user/repo")
    card, path = fetch(reference)
    card = replace(card, file=WEIGHTS_FILE, repo=None, revision=None)
    files: dict[str, bytes | Path] = {CARD_FILE: card.to_text().encode(), WEIGHTS_FILE: path}
    commit = remote.upload(repo, files, f"Add {card.name}")
    return replace(card, repo=repo, revision=commit)


def _locate_on_hub(repo: str, revision: str, offline: bool) -> tuple[ModelCard, Path | None]:
    path = remote.download(repo, CARD_FILE, revision, offline=offline)
    try:
        card = read_card(path)
    except ConfigError as error:
        raise UnavailableError(f"{repo}@{revision} is no restorekit model: {error}") from error
    commit = path.parent.name
    return replace(card, repo=repo, revision=commit), remote.cached(repo, card.file, commit)
