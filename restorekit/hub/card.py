"""The card of a model: what its training fixed, the same JSON in every place a model may lie."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorekit.errors import ConfigError, UnavailableError

CARD_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
DRAWN_SCORE = "drawn pictures"
"""Name of the score that engine.quick_score measures, in dB PSNR."""


@dataclass(frozen=True)
class ModelCard:
    """State what a training fixed, and where its weights come from.

    Attributes:
        name: `architecture.training`.
        architecture: name in the registry of models.
        config: settings of the architecture, JSON values.
        task: verb that the model is for.
        transfer: encoding of the pixels it takes, "linear" or "srgb".
        layout: channels it takes, "rgb", "gray" or "bayer".
        file: name of the safetensors file, without a folder.
        sha256: of that file, lower-case hexadecimal; empty where a card states none.
        licence: of the weights.
        data: what it was trained on.
        recipe: how it was trained.
        citation: paper of the method.
        scores: measured results by name.
        repo: Hub repository, `user/repo`.
        revision: commit of that repository.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    task: str
    transfer: str
    layout: str
    file: str = WEIGHTS_FILE
    sha256: str = ""
    licence: str = ""
    data: str = ""
    recipe: str = ""
    citation: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    repo: str | None = None
    revision: str | None = None

    @classmethod
    def from_json(cls, values: object) -> ModelCard:
        """Build a card from parsed JSON.

        Raises:
            ConfigError: a field is missing, unknown, of the wrong type or out of its range.
        """
        if not isinstance(values, dict):
            raise ConfigError("a model card is a JSON object")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := values.keys() - fields.keys():
            raise ConfigError(f"the model card has unknown fields: {', '.join(sorted(unknown))}")
        for name, f in fields.items():
            if name not in values:
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                    raise ConfigError(f"the model card has no {name!r}")
                continue
            kind = dict if name in ("config", "scores") else str
            if not isinstance(values[name], kind) and (f.default is not None or values[name]):
                raise ConfigError(f"{name!r} of the model card has the wrong type")
        card = cls(**values)
        for name, score in card.scores.items():
            if isinstance(score, bool) or not isinstance(score, float | int) or score != score:
                raise ConfigError(f"the score {name!r} of the model card is no number")
        if Path(card.file).name != card.file or not card.file.endswith(".safetensors"):
            raise ConfigError(f"'file' of the model card is no safetensors file name: {card.file}")
        if card.transfer not in ("linear", "srgb"):
            raise ConfigError("'transfer' of the model card is neither linear nor srgb")
        if card.layout not in ("rgb", "gray", "bayer"):
            raise ConfigError("'layout' of the model card is none of rgb, gray, bayer")
        return card

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """Return the text of a card's file."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def read_card(path: Path) -> ModelCard:
    """Read the card of a file.

    Raises:
        UnavailableError: the file cannot be read.
        ConfigError: it is no card.
    """
    if not os.path.exists(path):
        raise UnavailableError(f"{path.parent} is no model folder: it holds no {path.name}")
    values = read_json(path)
    try:
        return ModelCard.from_json(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        UnavailableError: the file cannot be read.
        ConfigError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
