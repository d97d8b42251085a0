"""The type of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restorekit.models.registry import Batch

Degrade = Callable[..., "Batch"]
"""Makes training pairs from (B, C, H, W) clean pictures in [0, 1] and a generator.

Of tasks that take a noise level, also from sigma, the range of noise deviations in 0-255 units.
"""


@dataclass(frozen=True)
class Task:
    """Say what a task is, from which its command and its training are made.

    Attributes:
        name: verb on the command line.
        summary: one line for the help.
        default_model: bundled model for colour pictures.
        degradations: what makes training pairs from clean pictures, by name; the default first.
        validations: what makes validation pairs, by name; the training's own without any.
        default_gray_model: bundled model for grey pictures, or None to use the colour model.
        burst: whether many frames give one picture.
        takes_noise_level: whether networks are told how strong the noise is; others are guarded.
        takes_mosaics: whether RAW pictures are restored before they are developed, not after.
        takes_psf: whether a blur that is known can be undone in place of the network's guess.
        transfer: encoding of what the networks see, "srgb" or "linear".
    """

    name: str
    summary: str
    default_model: str
    degradations: Mapping[str, Degrade]
    validations: Mapping[str, Degrade] = field(default_factory=dict)
    default_gray_model: str | None = None
    burst: bool = False
    takes_noise_level: bool = False
    takes_mosaics: bool = False
    takes_psf: bool = False
    transfer: str = "srgb"
